//! What an operator sees: metrics, spans, alarms, health. Never a secret, a payload, a key or the
//! value of a header.

mod alarm;
mod health;
mod meters;
mod spans;
mod table;
mod trace;

pub(crate) use alarm::Bell;
pub use alarm::{Alarm, AlarmKind, Alarms};
pub use health::{Health, NotReady};
pub(crate) use health::{Vitals, Ward};
pub(crate) use meters::{GroupGauges, LaneMeters, Scope, SenderMeters};
pub(crate) use spans::{ended, name, process, send, sent};
pub(crate) use table::describe;
pub use table::{METRICS, Metric, MetricKind};
pub(crate) use trace::inject;
