//! The reliability engine of longshore: senders, workers, retries, dead letters.
