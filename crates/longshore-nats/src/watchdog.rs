//! Looks after a group's durable: one that is silently gone is made again, and members learn that
//! it is another.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, Info};
use longshore_core::{ErrorKind, Result, Retryability};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::consumer::Inner;
use crate::declare::{consumer_info, create_consumer, durable_config};
use crate::error::error;
use crate::rescue;
use crate::shared::is_missing;

/// How often it is looked at without a reason. The answer also brings the group's lease, which
/// another member may have changed.
const PERIOD: Duration = Duration::from_secs(5);

/// Runs until the consumer is closed, or ended by what no reconnect can mend.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    period.reset();
    let mut link = inner.shared.link.watch();
    let mut broken = Breaks::new(&inner, link.borrow_and_update().generation);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = inner.suspicion.notified() => {}
            changed = link.changed() => match changed {
                Err(_) => return,
                // Refused subjects are told by the same channel.
                Ok(()) if link.borrow_and_update().generation == broken.generation => continue,
                Ok(()) => {}
            },
        }
        if inner.check().is_err() {
            return;
        }
        if !inner.shared.link.is_up() {
            continue;
        }
        let suspicious = broken.is_suspicious(&inner, link.borrow_and_update().generation);
        match look(&inner).await {
            Ok(info) if suspicious => rescue::look(&inner, &info).await,
            Ok(_) => {}
            Err(error) if error.retryability() == Retryability::Permanent => {
                return inner.end(error);
            }
            Err(error) => tracing::debug!(%error, "the group's consumer cannot be looked at now"),
        }
    }
}

/// Connections that ended, and whether a message may have done it.
struct Breaks {
    generation: u64,
    server: String,
    last: Option<Instant>,
}

impl Breaks {
    fn new(inner: &Inner, generation: u64) -> Self {
        Self { generation, server: inner.shared.client.server_info().server_id, last: None }
    }

    /// A server that was restarted has another id; in a cluster the client goes to another server,
    /// and a message that breaks connections breaks the next one too.
    fn is_suspicious(&mut self, inner: &Inner, generation: u64) -> bool {
        if generation == self.generation {
            return false;
        }
        let server = inner.shared.client.server_info().server_id;
        let again = self.last.is_some_and(|last| last.elapsed() < 2 * inner.lease() + PERIOD);
        let suspicious = server == self.server || again;
        *self = Self { generation, server, last: Some(Instant::now()) };
        suspicious
    }
}

async fn look(inner: &Inner) -> Result<Info> {
    let (shared, stream, durable) = (&inner.shared, &inner.names.of.stream, inner.durable());
    let floor = inner.floor.load(std::sync::atomic::Ordering::Relaxed);
    let info = match consumer_info(shared, stream, durable).await {
        Ok(info) => info,
        Err(missing) if is_missing(&missing) => {
            let filters = match inner.suspects {
                true => inner.names.suspect_filters(),
                false => inner.names.filters(),
            };
            let mut config = durable_config(
                durable,
                filters,
                inner.lease(),
                inner.longest_delay(),
                inner.suspects,
            );
            // Behind what every member had settled: some messages come twice, none is left out.
            config.deliver_policy = match floor {
                0 => DeliverPolicy::All,
                floor => DeliverPolicy::ByStartSequence { start_sequence: floor + 1 },
            };
            config.num_replicas = shared.config.replicas;
            tracing::warn!(
                stream,
                durable,
                floor,
                "the group's consumer is gone; it is made again"
            );
            match create_consumer(shared, stream, config).await {
                Ok(info) => info,
                // Another member was faster, and started where it had seen the floor.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    consumer_info(shared, stream, durable).await?
                }
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    if !inner.learn(&info) {
        let why = error(ErrorKind::LeaseLost, "the group's consumer was deleted and made again");
        inner.lose(&why);
    }
    Ok(info)
}
