//! The rules of the embedded broker, each on a paused clock.

mod kit;

mod dead_letters;
mod groups;
mod lifecycle;
mod publish;
mod retries;
mod suspects;
mod topology;
mod wakeups;
