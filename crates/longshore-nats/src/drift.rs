//! What differs between the settings that were asked for and those that the server has.
//!
//! The same comparison follows every creation: a server before 2.12 takes a field that it does not
//! know without a word, and makes the object without it.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_nats::jetstream::{consumer, stream};
use longshore_core::{Drift, DriftEntry};

/// Collects differences of one object.
pub(crate) struct Compare<'a> {
    drift: &'a mut Drift,
    object: String,
}

impl<'a> Compare<'a> {
    pub(crate) fn new(drift: &'a mut Drift, object: impl Into<String>) -> Self {
        Self { drift, object: object.into() }
    }

    pub(crate) fn entry<T: PartialEq + Debug>(
        &mut self,
        setting: &'static str,
        wanted: T,
        found: T,
    ) {
        if wanted != found {
            self.drift.entries.push(DriftEntry {
                object: self.object.clone(),
                setting,
                wanted: format!("{wanted:?}"),
                found: format!("{found:?}"),
            });
        }
    }

    /// `age` is what the contract calls `max_age` of this stream.
    pub(crate) fn stream(
        &mut self,
        age: &'static str,
        wanted: &stream::Config,
        found: &stream::Config,
    ) {
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        // 0 and -1 are both "no limit", and which one comes back depends on the version.
        let limit = |n: i64| n.max(0);
        self.entry("subjects", set(&wanted.subjects), set(&found.subjects));
        self.entry("retention", wanted.retention, found.retention);
        self.entry("discard", wanted.discard, found.discard);
        self.entry(age, wanted.max_age, found.max_age);
        self.entry("duplicate_window", wanted.duplicate_window, found.duplicate_window);
        self.entry("num_replicas", wanted.num_replicas, found.num_replicas);
        self.entry("storage", wanted.storage, found.storage);
        self.entry("allow_direct", wanted.allow_direct, found.allow_direct);
        self.entry("no_ack", wanted.no_ack, found.no_ack);
        self.entry("sealed", wanted.sealed, found.sealed);
        self.entry("max_msgs", limit(wanted.max_messages), limit(found.max_messages));
        self.entry(
            "max_msgs_per_subject",
            limit(wanted.max_messages_per_subject),
            limit(found.max_messages_per_subject),
        );
    }

    /// The lease and the longest delay are the group's own and are updated; where it starts is no
    /// difference later.
    pub(crate) fn consumer(&mut self, wanted: &consumer::Config, found: &consumer::Config) {
        let filters = |config: &consumer::Config| {
            let single = Some(&config.filter_subject).filter(|subject| !subject.is_empty());
            config.filter_subjects.iter().chain(single).cloned().collect::<BTreeSet<_>>()
        };
        self.entry("filter_subjects", filters(wanted), filters(found));
        self.entry("ack_policy", wanted.ack_policy, found.ack_policy);
        self.entry("max_deliver", wanted.max_deliver.max(0), found.max_deliver.max(0));
        self.entry("max_ack_pending", wanted.max_ack_pending, found.max_ack_pending);
        // Its values would replace the delays of retries.
        self.entry("backoff", &wanted.backoff, &found.backoff);
        self.entry("headers_only", wanted.headers_only, found.headers_only);
        self.entry("deliver_subject", &wanted.deliver_subject, &found.deliver_subject);
        self.entry("inactive_threshold", wanted.inactive_threshold, found.inactive_threshold);
    }
}
