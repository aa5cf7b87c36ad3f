//! The backend against a real server.
//!
//! `LONGSHORE_NATS_SERVER` names the server's executable: each test that stops, kills or configures
//! a server starts one of its own on loopback. Without it every test fails and says so.

mod bad_input;
mod deleted;
mod letters;
mod records;
mod restart;
mod server;
mod settle;
mod support;
