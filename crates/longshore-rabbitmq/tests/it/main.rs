//! The backend against a real server.
//!
//! A server takes seconds to start, so the tests share one, of the row that `LONGSHORE_RABBITMQ` names
//! (`rabbitmq@3.10`) or of the default one, with topics of their own. A test that stops, fills or
//! configures its server has one of its own.

mod alarm;
mod bad_input;
mod certificates;
mod child;
mod connect;
mod declare;
mod denied;
mod hand;
mod killed;
mod lost;
mod moves;
mod outage;
mod publish;
mod server;
mod support;
mod tls;
mod traps;
mod unrouted;
