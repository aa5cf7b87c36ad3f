//! A test kit for programs that use longshore: a broker that is watched, a clock that jumps, faults
//! at a switch, and assertions that show the whole story when they fail.
//!
//! ```
//! use longshore_core::{Failure, Setup};
//! # use longshore_memory as memory;
//! # async fn connect(setup: Setup) -> longshore_core::Result<std::sync::Arc<dyn longshore_core::Broker>> {
//! #     Ok(std::sync::Arc::new(memory::connect("memory://", setup).await?))
//! # }
//! use longshore_runtime::testing::TestKit;
//!
//! async fn decline(_card: String) -> Result<(), Failure> {
//!     Err(Failure::permanent("the card is stolen"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> longshore_core::Result<()> {
//! let kit = TestKit::new(connect).await?;
//! let worker = kit.client().worker("cards", "billing").json(decline).start().await?;
//! let sender = kit.client().sender("cards").await?;
//! sender.send(longshore_core::Message::json(&"4111")?).await?;
//! kit.idle().await;
//! kit.assert_dead_lettered("cards", "billing", 1);
//! worker.stop().await?;
//! # Ok(()) }
//! ```

mod broker;
mod consumer;
mod faults;
mod journal;
mod kit;
mod publisher;
mod stage;

pub use journal::{Entry, What};
pub use kit::TestKit;
