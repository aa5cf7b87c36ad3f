//! The conformance suite of longshore: every promise of the contract as a check that any backend can run.
