//! The checks, by what they are about.

mod ack;
mod admin;
mod attempts;
mod bad_input;
mod consume;
mod dlq;
mod fidelity;
mod groups;
mod isolation;
mod large;
mod metadata;
mod nack;
mod publish;
mod retry;
mod retry_lane;
mod shutdown;

use crate::check::Check;

/// All checks, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        publish::CHECKS,
        consume::CHECKS,
        ack::CHECKS,
        nack::CHECKS,
        retry::CHECKS,
        retry_lane::CHECKS,
        attempts::CHECKS,
        dlq::CHECKS,
        metadata::CHECKS,
        groups::CHECKS,
        shutdown::CHECKS,
        fidelity::CHECKS,
        large::CHECKS,
        admin::CHECKS,
        isolation::CHECKS,
        bad_input::CHECKS,
    ]
    .into_iter()
    .flatten()
}
