//! What interest retention needs: the server confirms what no group will read, and drops it.
//!
//! So it is asked which groups there are, before a batch and again behind its confirmations. Where
//! one was deleted or made again in between, what was confirmed may be gone, and is no success. The
//! server also knows the ids of what it dropped. So there an id counts for the groups of its time
//! only: under others, a second try is stored.

use std::time::{Duration, SystemTime};

use longshore_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::error;
use crate::names::{SUSPECTS, TopicNames};
use crate::shared::Shared;

/// How long an answer is believed before a batch; behind it nothing older than the batch is.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// The groups of a topic, told apart from those of another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interested {
    groups: usize,
    /// When the youngest was made, in nanoseconds since 1970.
    latest: u128,
}

impl Interested {
    /// What is put behind a message's id for the server's window.
    pub(crate) fn mark(self) -> String {
        format!("@{}-{}", self.groups, self.latest)
    }
}

/// What one publisher knows of its topic's groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The answer, and when it was asked for.
    known: Mutex<Option<(Instant, Interested)>>,
}

impl Groups {
    /// The groups as of a moment ago; `None` under another retention, where nobody need ask.
    ///
    /// # Errors
    /// `Unroutable` where there are none.
    pub(crate) async fn before(
        &self,
        shared: &Shared,
        names: &TopicNames,
    ) -> Result<Option<Interested>> {
        if !shared.config.interest {
            return Ok(None);
        }
        let since = Instant::now().checked_sub(KNOWN_FOR);
        self.since(shared, names, since).await.map(Some)
    }

    /// # Errors
    /// `Unroutable` where the groups are others than they were `before`: what was confirmed
    /// meanwhile may have been dropped.
    pub(crate) async fn behind(
        &self,
        shared: &Shared,
        names: &TopicNames,
        before: Interested,
    ) -> Result<()> {
        let now = self.since(shared, names, Some(Instant::now())).await?;
        match now == before {
            true => Ok(()),
            false => Err(unroutable(names, "had other groups meanwhile")),
        }
    }

    /// Batches that are confirmed at the same time share one question.
    async fn since(
        &self,
        shared: &Shared,
        names: &TopicNames,
        since: Option<Instant>,
    ) -> Result<Interested> {
        let mut known = self.known.lock().await;
        if let Some((asked, interested)) = *known
            && Some(asked) >= since
        {
            return Ok(interested);
        }
        *known = None;
        let asked = Instant::now();
        let interested = ask(shared, names).await?;
        if interested.groups == 0 {
            return Err(unroutable(names, "has no group"));
        }
        *known = Some((asked, interested));
        Ok(interested)
    }
}

fn unroutable(names: &TopicNames, why: &str) -> Error {
    let text = format!("topic `{}` {why}, and interest retention drops", names.topic);
    error(ErrorKind::Unroutable, text)
}

async fn ask(shared: &Shared, names: &TopicNames) -> Result<Interested> {
    #[derive(Deserialize)]
    struct Page {
        total: usize,
        #[serde(default)]
        consumers: Vec<Known>,
    }
    #[derive(Deserialize)]
    struct Known {
        name: String,
        created: String,
    }
    let operation = format!("CONSUMER.LIST.{}", names.stream);
    let (mut seen, mut interested) = (0, Interested { groups: 0, latest: 0 });
    loop {
        let asked = json!({ "offset": seen });
        let page: Page = shared.api(&operation, &names.stream, &asked).await?;
        let came = page.consumers.len();
        for known in page.consumers {
            // The lane of suspects does not read the topic itself.
            if known.name.ends_with(SUSPECTS) {
                continue;
            }
            let made = humantime::parse_rfc3339(&known.created)
                .map_err(|_| error(ErrorKind::Unexpected, "a consumer has no time"))?;
            let made = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            interested.groups += 1;
            interested.latest = interested.latest.max(made.as_nanos());
        }
        seen += came;
        if came == 0 || seen >= page.total {
            return Ok(interested);
        }
    }
}
