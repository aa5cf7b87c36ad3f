//! Topologies: made, verified or assumed.

use std::collections::VecDeque;
use std::time::Duration;

use longshore_core::{
    Drift, DriftEntry, Error, Group as Declared, Mode, Result, Start, TopicName, Topology,
};

use crate::error::{BACKEND, no_group};
use crate::group::Group;
use crate::world::{State, World};

pub(crate) fn declare(world: &World, topology: &Topology) -> Result<()> {
    if topology.mode == Mode::Assume {
        return Ok(());
    }
    topology.groups.iter().try_for_each(check)?;
    let mut state = world.lock();
    compare(&state, topology)?;
    let topics = topology.topics.iter().map(|topic| &topic.name);
    let topics = topics.chain(topology.groups.iter().map(|group| &group.topic));
    if topology.mode == Mode::Verify {
        for topic in topics {
            state.topic_place(topic)?;
        }
        for group in &topology.groups {
            state.group_place(&group.topic, &group.name)?;
        }
        return Ok(());
    }
    for topic in topics {
        make_topic(world, &mut state, topic);
    }
    for group in &topology.groups {
        make_group(&mut state, group)?;
    }
    Ok(())
}

/// A duration of zero would hand a message over for ever, or drop each letter at once.
fn check(group: &Declared) -> Result<()> {
    for (setting, value) in [("lease", Some(group.lease)), ("dead_letters", group.dead_letters)] {
        if value == Some(Duration::ZERO) {
            let text = format!("group `{}.{}`: {setting} is zero", group.topic, group.name);
            return Err(Error::config(text).with_backend(BACKEND));
        }
    }
    Ok(())
}

/// Every difference from what exists, and from what the same topology says further up.
fn compare(state: &State, topology: &Topology) -> Result<()> {
    let mut drift = Drift::default();
    for (index, wanted) in topology.groups.iter().enumerate() {
        let found = match state.group_place(&wanted.topic, &wanted.name) {
            Ok(place) => Some(state.groups[place].retention),
            Err(_) => topology.groups[..index]
                .iter()
                .find(|other| (&other.topic, &other.name) == (&wanted.topic, &wanted.name))
                .map(|other| other.dead_letters),
        };
        if let Some(found) = found.filter(|found| *found != wanted.dead_letters) {
            drift.entries.push(DriftEntry {
                object: format!("group {}.{}", wanted.topic, wanted.name),
                setting: "dead_letters",
                wanted: retention(wanted.dead_letters),
                found: retention(found),
            });
        }
    }
    if drift.entries.is_empty() { Ok(()) } else { Err(drift.into_error().with_backend(BACKEND)) }
}

fn retention(kept: Option<Duration>) -> String {
    kept.map_or_else(|| "off".to_owned(), |kept| format!("{kept:?}"))
}

fn make_topic(world: &World, state: &mut State, name: &TopicName) {
    if state.topic_place(name).is_err() {
        state.add_topic(world.new_topic(name.clone()));
    }
}

fn make_group(state: &mut State, declared: &Declared) -> Result<()> {
    if let Ok(place) = state.group_place(&declared.topic, &declared.name) {
        // Of two leases the last declared holds for all members.
        state.groups[place].lease = declared.lease;
        return Ok(());
    }
    let topic = state
        .topic_place(&declared.topic)
        .map_err(|_| no_group(&declared.topic, &declared.name))?;
    let fresh = match declared.start {
        Start::Declared => VecDeque::new(),
        Start::Earliest => state.topics[topic].share_all().collect(),
    };
    state.add_group(Group::new(topic, declared, fresh));
    Ok(())
}
