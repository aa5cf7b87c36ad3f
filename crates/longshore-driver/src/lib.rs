//! The kit for longshore's backends: what each of them needs and none should write again.
//!
//! - [`Supervisor`]: connect, serve, reconnect, with back-off and generations;
//! - [`Slab`]: the table of deliveries in flight behind an [`AckToken`](longshore_core::AckToken);
//! - [`Coalescer`]: many acknowledgements in few frames;
//! - [`options`]: connection URLs with declared, typed options;
//! - [`hygiene`]: which headers are the user's and which are ours.
//!
//! It knows no broker and no client library.

mod backoff;
mod coalescer;
pub mod hygiene;
pub mod options;
mod secret;
mod slab;
mod supervisor;

pub use backoff::{Backoff, BackoffConfig};
pub use coalescer::{Coalescer, Flush};
pub use secret::Secret;
pub use slab::Slab;
pub use supervisor::{Connect, Handle, State, Supervisor};
