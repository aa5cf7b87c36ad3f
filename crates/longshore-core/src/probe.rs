use std::fmt::Debug;

/// Called by a backend after each durable step inside a move, with the step's name from
/// [`BrokerInfo::steps`](crate::BrokerInfo::steps).
///
/// In production it does nothing. The conformance suite aborts the process in it, so that every
/// crash window inside a move is a test.
pub trait Probe: Debug + Send + Sync + 'static {
    /// The step named `step` is durable; the next has not begun.
    fn hit(&self, step: &'static str);
}

/// The probe that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn hit(&self, _step: &'static str) {}
}
