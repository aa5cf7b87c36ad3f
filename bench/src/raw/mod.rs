//! The raw clients: one file a backend.

pub(crate) mod nats;
pub(crate) mod rabbitmq;
