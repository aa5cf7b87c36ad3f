//! Settings of the server that break or weaken a promise.

use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use futures::StreamExt as _;
use longshore_core::{Finding, Result, Severity};

use crate::error;
use crate::shared::Shared;

/// A retry may wait for a day, and an outage may last another.
const SHORT: Duration = Duration::from_secs(2 * 86_400);
/// What reconnecting after a kill can take.
const WINDOW: Duration = Duration::from_secs(30);
const LEDGER: &str = "longshore=ledger=";

/// Looks at every topic that has a ledger: those are the ones that longshore declared.
pub(crate) async fn audit(shared: &Shared) -> Result<Vec<Finding>> {
    let mut findings = vec![Finding {
        severity: Severity::Info,
        setting: "sync_interval".to_owned(),
        message:
            "the server confirms what is in the page cache and syncs every two minutes unless \
                  told otherwise; a client cannot read the setting. For messages that must outlive \
                  a power loss, set `sync_interval: always`, or three replicas in three places"
                .to_owned(),
    }];
    let streams = async {
        let mut listed = shared.context.streams();
        let mut all = Vec::new();
        while let Some(info) = listed.next().await {
            all.push(info.map_err(error::api)?);
        }
        Ok(all)
    };
    let concern = crate::link::Concern::Api("LIST");
    let all: Vec<stream::Info> = shared.link.bounded(shared.deadline(), concern, streams).await?;
    let has = |name: &str| all.iter().any(|info| info.config.name == name);
    for info in &all {
        let name = &info.config.name;
        let letters = name.ends_with("=dlq");
        if name.starts_with(LEDGER) {
            ledger(&info.config, &mut findings);
        } else if letters || has(&format!("{LEDGER}{name}")) {
            topic(&info.config, letters, &mut findings);
        }
        if info.cluster.is_some() && info.config.num_replicas < 3 && name.contains(LEDGER) {
            add(
                &mut findings,
                Severity::Warning,
                name,
                "num_replicas",
                "a cluster with fewer than \
                three replicas loses the topic with a node; set `replicas=3`",
            );
        }
    }
    Ok(findings)
}

fn add(
    findings: &mut Vec<Finding>,
    severity: Severity,
    stream: &str,
    setting: &str,
    message: &str,
) {
    let setting = format!("stream {stream}: {setting}");
    findings.push(Finding { severity, setting, message: message.to_owned() });
}

fn topic(config: &stream::Config, letters: bool, findings: &mut Vec<Finding>) {
    let name = &config.name;
    if config.discard == DiscardPolicy::Old && (config.max_bytes > 0 || config.max_messages > 0) {
        add(
            findings,
            Severity::Danger,
            name,
            "discard",
            "a full stream drops its oldest messages, \
            read or not; set `discard: new`, so that publishers wait instead",
        );
    }
    match config.retention {
        RetentionPolicy::Limits => {}
        RetentionPolicy::Interest => add(
            findings,
            Severity::Warning,
            name,
            "retention",
            "under \
            interest retention what is published without a group, or while a group is deleted, is \
            confirmed and dropped",
        ),
        RetentionPolicy::WorkQueue => add(
            findings,
            Severity::Danger,
            name,
            "retention",
            "a work \
            queue takes one group only",
        ),
    }
    if config.storage == StorageType::Memory {
        add(
            findings,
            Severity::Danger,
            name,
            "storage",
            "messages die with the server's process; \
            use file storage",
        );
    }
    if !letters && !config.max_age.is_zero() && config.max_age < SHORT {
        add(
            findings,
            Severity::Warning,
            name,
            "max_age",
            "a message that waits for a retry over \
            a day's outage is dropped unread; keep `max_age` above `max_retry_age` and an outage",
        );
    }
    if config.duplicate_window < WINDOW {
        add(
            findings,
            Severity::Warning,
            name,
            "duplicate_window",
            "a publish that is tried again \
            after an outage is stored twice; keep the window above the time to reconnect",
        );
    }
}

fn ledger(config: &stream::Config, findings: &mut Vec<Finding>) {
    let name = &config.name;
    if !config.max_age.is_zero() {
        add(
            findings,
            Severity::Danger,
            name,
            "max_age",
            "a retry record that goes by its age \
            resets the count of attempts",
        );
    }
    if config.allow_direct {
        add(
            findings,
            Severity::Danger,
            name,
            "allow_direct",
            "a follower may answer with an old \
            record; set it to false",
        );
    }
}
