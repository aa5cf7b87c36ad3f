//! One API over message brokers, with one reliability policy.
