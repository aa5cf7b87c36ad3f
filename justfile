# An index of commands. No logic here: each recipe is one call, and works the same without just.

# List the recipes.
default:
    @just --list

# Install what the tests need, and run everything.
[group('check')]
test *args:
    cargo xtask test {{args}}

# Run the conformance suite.
[group('check')]
conformance *args:
    cargo xtask conformance {{args}}

# Run the engine against a model broker, from seeds.
[group('check')]
sim *args:
    cargo xtask sim {{args}}

# Measure longshore beside the raw clients.
[group('run')]
bench *args:
    cargo xtask bench {{args}}

# Start, stop and list real brokers.
[group('run')]
brokers *args:
    cargo xtask brokers {{args}}

# Format the code.
[group('check')]
fmt:
    cargo fmt --all

# Lint everything; warnings are errors.
[group('check')]
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Licences, sources, banned crates and advisories; needs cargo-deny, and the network for advisories.
[group('check')]
deny:
    cargo deny --locked check

# Run the first program to read; takes a broker's URL.
[group('run')]
quickstart *args:
    cargo run --example quickstart -- {{args}}

# Run an example by its name.
[group('run')]
example name *args:
    cargo run --example {{name}} -- {{args}}

# Build the API documentation.
[group('docs')]
doc *args:
    cargo doc --locked --workspace --no-deps {{args}}
