//! The backend against a real server.
//!
//! Each test starts a server of its own: the testbed's program, of the row that `LONGSHORE_NATS` names
//! (`nats@2.10`), or of the default one.

mod bad_input;
mod certificates;
mod child;
mod cluster;
mod crashes;
mod deleted;
mod denied;
mod foreign;
mod full;
mod health;
mod interest;
mod jwt;
mod killed;
mod letters;
mod login;
mod outage;
mod parked;
mod records;
mod restart;
mod server;
mod settle;
mod support;
mod tls;
