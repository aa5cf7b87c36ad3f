//! What a group keeps of itself on the server.

use std::time::Duration;

use longshore_core::{Error, Group, Result};
use redis::Value;

use crate::error::BACKEND;
use crate::names::GroupNames;
use crate::reply;
use crate::shared::Shared;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    /// `None`: no dead-letter queue.
    pub(crate) retention: Option<Duration>,
    pub(crate) longest_delay: Duration,
}

pub(crate) fn ms(duration: Duration) -> u64 {
    // The server's numbers are exact to 2^53: 285,000 years.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 53)
}

/// Never shorter than what was asked for.
pub(crate) fn ms_up(duration: Duration) -> u64 {
    let rest = Duration::from_nanos(999_999);
    ms(duration.checked_add(rest).unwrap_or(duration))
}

impl Settings {
    pub(crate) fn of(group: &Group) -> Self {
        let Group { lease, dead_letters, longest_delay, .. } = group;
        Self { lease: *lease, retention: *dead_letters, longest_delay: *longest_delay }
    }

    pub(crate) fn retention_ms(&self) -> String {
        self.retention.map(|kept| ms_up(kept).to_string()).unwrap_or_default()
    }

    /// As the server has them; `None` where the group was never declared by us.
    pub(crate) async fn read(shared: &Shared, names: &GroupNames) -> Result<Option<Self>> {
        let mut ask = redis::cmd("HMGET");
        ask.arg(&names.conf).arg("lease").arg("retention").arg("longest_delay");
        let found = reply::list(shared.control(&names.topic).query(ask).await?)?;
        let number = |at: usize| -> Option<Duration> {
            let ms = found.get(at).and_then(reply::number)?;
            u64::try_from(ms).ok().map(Duration::from_millis)
        };
        if matches!(found.first(), None | Some(Value::Nil)) {
            return Ok(None);
        }
        let lease = number(0).filter(|lease| !lease.is_zero()).ok_or_else(|| {
            let text =
                format!("the settings of group `{}.{}` hold no lease", names.topic, names.group);
            Error::config(text).with_backend(BACKEND)
        })?;
        let longest_delay = number(2).unwrap_or(Duration::from_secs(30 * 86_400));
        Ok(Some(Self { lease, retention: number(1), longest_delay }))
    }
}
