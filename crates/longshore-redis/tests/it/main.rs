//! The backend against a real server.
//!
//! Each test starts a server of its own: the testbed's, of the row that `LONGSHORE_REDIS` names
//! (`valkey@8.1`), or of the default one.

mod access;
mod bad_input;
mod certificates;
mod cluster;
mod deleted;
mod foreign;
mod full;
mod groups;
mod letters;
mod parked;
mod proxy;
mod reads;
mod restart;
mod scripts;
mod sentinel;
mod stale;
mod support;
mod suspects;
mod tls;
