//! One API over message brokers, with one reliability policy: acks, durable delayed retries, exact
//! attempt counts and dead-letter queues that mean the same on every broker.
//!
//! ```
//! use longshore::{Failure, Message, Policy};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Order {
//!     id: u64,
//! }
//!
//! async fn bill(order: Order) -> Result<(), Failure> {
//!     charge(&order).await?; // any error, anyhow's too: retried by the policy, then dead-lettered
//!     Ok(())
//! }
//! # async fn charge(_: &Order) -> anyhow::Result<()> { Ok(()) }
//!
//! #[tokio::main]
//! async fn main() -> longshore::Result<()> {
//!     let url = std::env::args().nth(1).unwrap_or("memory://".into());
//!     let client = longshore::connect(&url).await?;
//!     let worker =
//!         client.worker("orders", "billing").policy(Policy::default()).json(bill).start().await?;
//!     client.sender("orders").await?.send(Message::json(&Order { id: 7 })?).await?;
//!     worker.idle().await;
//!     println!("{}", worker.stop().await?);
//!     Ok(())
//! }
//! ```
//!
//! # The parts
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Client`] | a connection to one broker |
//! | [`Sender`] | the outgoing side of one topic: confirmed, or an error that says what is known |
//! | [`WorkerBuilder`], [`Worker`], [`Running`] | a group on a topic, a [`Policy`] and a handler |
//! | [`Subscription`], [`Delivery`] | for programs that settle each delivery themselves |
//! | [`DeadLetters`], [`Redrive`] | messages that will not be tried again, and their way back |
//! | [`Policy`], [`Failure`] | what happens to a message whose handler failed |
//! | [`observe`] | metrics, alarms and the health of a service |
//! | [`Error`] | kind, retryability, operation, context; of a publish: what is known of the message |
//!
//! # Features
//!
//! One a backend, additive, none changes behaviour: `memory` (default), `nats`, `rabbitmq`, `redis`,
//! and `full` for all.
//! Beside them `opentelemetry` (trace contexts in messages) and, for development dependencies,
//! `testing` (the test kit).

mod builtin;
#[cfg(feature = "testing")]
pub mod testing;

pub use builtin::registry;
#[doc(inline)]
pub use longshore_core::policy;
pub use longshore_core::{
    Broker, BrokerInfo, Capabilities, Cause, Clock, Cursor, Drift, DriftEntry, Error, ErrorKind,
    Failure, Finding, Group, GroupName, HeaderName, Headers, HistoryEntry, InstanceId, Letter,
    Message, MessageId, Mode, Outcome, Policy, Position, Reason, Receipt, Received, Record, Result,
    Retryability, Setup, Severity, Start, SystemClock, Tenant, Topic, TopicName, Topology, Verdict,
};
#[doc(inline)]
pub use longshore_runtime::observe;
pub use longshore_runtime::{
    BreakerState, Client, ClientOptions, Context, DeadLetter, DeadLetters, Delivery, Handled,
    Handler, Pending, Redrive, Redriven, Registry, Running, Sender, Subscribe, Subscription, Tally,
    TokioClock, TypedHandler, Unsettled, Worker, WorkerBuilder,
};

/// Connects to a broker; the URL's scheme picks the backend.
///
/// ```
/// # #[tokio::main] async fn main() -> longshore::Result<()> {
/// let client = longshore::connect("memory://").await?;
/// assert_eq!(client.info().name, "memory");
/// let error = longshore::connect("gopher://").await.unwrap_err();
/// assert!(error.to_string().starts_with("scheme `gopher` is unknown; built in: "));
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Config` for an unknown scheme (what is built in is listed) or option (the known ones are
/// listed); `Unauthenticated`, `Unavailable` and whatever else the backend meets.
///
/// # Cancel safety
/// Dropped before it is ready, no connection stays.
pub async fn connect(url: &str) -> Result<Client> {
    connect_with(url, ClientOptions::default()).await
}

/// Connects with settings that belong to no policy: a tenant, say.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(url: &str, options: ClientOptions) -> Result<Client> {
    let setup = Setup::default();
    let broker = registry().connect(url, setup.clone()).await?;
    Ok(Client::with_options(broker, setup, options))
}
