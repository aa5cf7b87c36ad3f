//! The backend against a real server.
//!
//! Each test starts a server of its own: the testbed's, of the row that `LONGSHORE_REDIS` names
//! (`valkey@8.1`), or of the default one.

mod restart;
mod support;
