//! The embedded broker of longshore: the reference backend and test double.
