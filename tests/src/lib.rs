//! The book, compiled: every block of Rust in it is a test.

macro_rules! pages {
    ($($name:ident = $path:literal,)+) => {
        $(
            #[doc = include_str!($path)]
            #[cfg(doctest)]
            pub mod $name {}
        )+
    };
}

pages! {
    readme = "../../README.md",
    architecture = "../../docs/architecture.md",
    guarantees = "../../docs/guarantees.md",
    policy = "../../docs/policy.md",
    dead_letters = "../../docs/dead-letters.md",
    wire = "../../docs/wire.md",
    writing_a_backend = "../../docs/writing-a-backend.md",
    observability = "../../docs/observability.md",
    testing = "../../docs/testing.md",
    memory = "../../docs/backends/memory.md",
    rabbitmq = "../../docs/backends/rabbitmq.md",
    performance = "../../docs/performance.md",
}
