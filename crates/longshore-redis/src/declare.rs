//! Topologies: made, verified or assumed.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::{
    Drift, DriftEntry, Error, ErrorKind, Group, Mode, Result, Start, TopicName, Topology,
};
use redis::Value;

use crate::error::{BACKEND, no_group, unreadable};
use crate::names::{GroupNames, Lane, MAKER};
use crate::reply;
use crate::script::{self, Call};
use crate::settings::{Settings, ms_up};
use crate::shared::Shared;

pub(crate) async fn declare(shared: &Shared, topology: &Topology) -> Result<()> {
    if topology.mode == Mode::Assume {
        return Ok(());
    }
    topology.groups.iter().try_for_each(check)?;
    let done = match topology.mode {
        Mode::Verify => verify(shared, topology).await,
        _ => make(shared, topology).await,
    };
    done.map_err(|error| error.with_operation("broker.declare"))
}

/// A duration of zero would hand a message over for ever, or drop each letter at once.
fn check(group: &Group) -> Result<()> {
    for (setting, value) in [("lease", Some(group.lease)), ("dead_letters", group.dead_letters)] {
        if value == Some(Duration::ZERO) {
            let text = format!("group `{}.{}`: {setting} is zero", group.topic, group.name);
            return Err(Error::config(text).with_backend(BACKEND));
        }
    }
    Ok(())
}

/// Topics that are named alone or by a group, each once.
fn topics(topology: &Topology) -> BTreeSet<&TopicName> {
    let named = topology.topics.iter().map(|topic| &topic.name);
    named.chain(topology.groups.iter().map(|group| &group.topic)).collect()
}

async fn verify(shared: &Shared, topology: &Topology) -> Result<()> {
    for topic in topics(topology) {
        shared.check_topic(topic).await?;
    }
    for group in &topology.groups {
        if !shared.has_group(&group.topic, group.name.as_str()).await? {
            return Err(no_group(&group.topic, &group.name));
        }
    }
    refuse(drift(shared, topology).await?)
}

async fn make(shared: &Shared, topology: &Topology) -> Result<()> {
    // All is looked at first: where anything differs, nothing is made.
    refuse(drift(shared, topology).await?)?;
    for topic in topics(topology) {
        match shared.check_topic(topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let call = Call::new(&script::TOPIC, &[topic.as_str()]).arg(MAKER);
                shared.control(topic).run(call).await?;
            }
            found => found?,
        }
    }
    let mut differing = Drift::default();
    for group in &topology.groups {
        let names = GroupNames::new(&group.topic, &group.name);
        let settings = Settings::of(group);
        let keys = [names.stream(Lane::Main), &names.redrive, &names.suspect, &names.conf];
        let call = Call::new(&script::DECLARE, &keys)
            .arg(group.name.as_str())
            .arg(match group.start {
                Start::Declared => "$",
                Start::Earliest => "0",
            })
            .arg(ms_up(settings.lease))
            .arg(settings.retention_ms())
            .arg(ms_up(settings.longest_delay));
        let answer = reply::list(shared.control(&group.topic).run(call).await?)?;
        // Another process may have been faster, with another setting.
        if answer.first() == Some(&Value::Int(0)) {
            let found = answer.get(1).and_then(reply::text).ok_or_else(unreadable)?;
            let found = found.parse().ok().map(Duration::from_millis);
            compare(&mut differing, group, found);
        }
    }
    refuse(differing)
}

/// What of the groups exists with other settings, or is twice in the topology itself. The lease and
/// the longest delay are updated; where a group starts is no difference later.
async fn drift(shared: &Shared, topology: &Topology) -> Result<Drift> {
    let mut drift = Drift::default();
    for (index, group) in topology.groups.iter().enumerate() {
        let same = |other: &&Group| (&other.topic, &other.name) == (&group.topic, &group.name);
        if let Some(other) = topology.groups[..index].iter().find(same) {
            compare(&mut drift, group, other.dead_letters);
        }
        let names = GroupNames::new(&group.topic, &group.name);
        if let Some(found) = Settings::read(shared, &names).await? {
            compare(&mut drift, group, found.retention);
        }
    }
    Ok(drift)
}

fn compare(drift: &mut Drift, group: &Group, found: Option<Duration>) {
    // Kept in milliseconds.
    let wanted = group.dead_letters.map(|kept| Duration::from_millis(ms_up(kept)));
    let found = found.map(|kept| Duration::from_millis(ms_up(kept)));
    if wanted != found {
        drift.entries.push(DriftEntry {
            object: format!("group {}.{}", group.topic, group.name),
            setting: "dead_letters",
            wanted: format!("{wanted:?}"),
            found: format!("{found:?}"),
        });
    }
}

fn refuse(drift: Drift) -> Result<()> {
    if drift.entries.is_empty() { Ok(()) } else { Err(drift.into_error().with_backend(BACKEND)) }
}
