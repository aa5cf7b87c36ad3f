//! The checks, by what they are about.

mod ack;
mod admin;
mod attempts;
mod bad_input;
mod batch;
mod cap;
mod capabilities;
mod confirm;
mod consume;
mod crash;
mod crash_loop;
mod dlq;
mod dlq_room;
mod fidelity;
mod flow;
mod groups;
mod headers;
mod hostile;
mod isolation;
mod large;
mod lease;
mod letters;
mod metadata;
mod moves;
mod nack;
mod names;
mod position;
mod publish;
mod retry;
mod retry_bounds;
mod retry_lane;
mod shutdown;
mod swap;
mod torn;
mod unsupported;

use crate::check::Check;

/// All checks, by what they are about.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        confirm::CHECKS,
        publish::CHECKS,
        consume::CHECKS,
        position::CHECKS,
        ack::CHECKS,
        lease::CHECKS,
        nack::CHECKS,
        unsupported::CHECKS,
        retry::CHECKS,
        retry_bounds::CHECKS,
        retry_lane::CHECKS,
        moves::CHECKS,
        attempts::CHECKS,
        cap::CHECKS,
        hostile::CHECKS,
        dlq::CHECKS,
        dlq_room::CHECKS,
        metadata::CHECKS,
        groups::CHECKS,
        crash::CHECKS,
        crash_loop::CHECKS,
        shutdown::CHECKS,
        flow::CHECKS,
        fidelity::CHECKS,
        headers::CHECKS,
        large::CHECKS,
        batch::CHECKS,
        admin::CHECKS,
        letters::CHECKS,
        names::CHECKS,
        isolation::CHECKS,
        bad_input::CHECKS,
        swap::CHECKS,
        capabilities::CHECKS,
    ]
    .into_iter()
    .flatten()
}
