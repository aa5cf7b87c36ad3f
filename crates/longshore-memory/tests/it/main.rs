//! The rules of the embedded broker, each on a paused clock.

mod groups;
mod kit;
