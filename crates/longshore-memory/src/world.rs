//! A broker: everything under one lock, and who waits for what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::{GroupName, Result, Source, TopicName};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dedup::Recent;
use crate::error::{no_group, no_topic};
use crate::group::Group;
use crate::store::{Entry, Item, Topic};

pub(crate) struct World {
    pub(crate) capacity: usize,
    pub(crate) dedup: Duration,
    state: Mutex<State>,
    /// Publishers that wait for room stand in line here, so that none overtakes another.
    pub(crate) line: tokio::sync::Mutex<()>,
    /// The first in line is told of room.
    pub(crate) room: Notify,
}

/// Topics and groups are never removed, so their places in the lists name them.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) topics: Vec<Topic>,
    pub(crate) groups: Vec<Group>,
    topic_places: HashMap<TopicName, usize>,
    group_places: HashMap<(TopicName, GroupName), usize>,
    /// Messages kept: in topics, in dead-letter queues, and redriven.
    pub(crate) stored: usize,
    /// Publishers in line.
    pub(crate) in_line: usize,
    /// How many consumers there were: the epochs of their tokens, from 1.
    consumers: u32,
}

impl World {
    pub(crate) fn new(capacity: usize, dedup: Duration) -> Self {
        Self {
            capacity,
            dedup,
            state: Mutex::default(),
            line: tokio::sync::Mutex::new(()),
            room: Notify::new(),
        }
    }

    /// A panic under the lock is a bug that was reported where it arose; the state is what the last
    /// whole step left, and the others go on with it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever is first in line, if there is room now.
    pub(crate) fn announce_room(&self, state: &State) {
        if state.in_line > 0 && state.stored < self.capacity {
            self.room.notify_one();
        }
    }

    pub(crate) fn new_topic(&self, name: TopicName) -> Topic {
        Topic::new(name, Recent::new(self.dedup, self.capacity))
    }
}

impl State {
    pub(crate) fn topic_place(&self, name: &TopicName) -> Result<usize> {
        self.topic_places.get(name).copied().ok_or_else(|| no_topic(name))
    }

    pub(crate) fn group_place(&self, topic: &TopicName, group: &GroupName) -> Result<usize> {
        // Declarations and new consumers ask, never a message: the clones cost nothing that counts.
        let key = (topic.clone(), group.clone());
        self.group_places.get(&key).copied().ok_or_else(|| no_group(topic, group))
    }

    pub(crate) fn add_topic(&mut self, topic: Topic) -> usize {
        let place = self.topics.len();
        self.topic_places.insert(topic.name.clone(), place);
        self.topics.push(topic);
        place
    }

    pub(crate) fn add_group(&mut self, group: Group) {
        let (place, topic) = (self.groups.len(), &mut self.topics[group.topic]);
        topic.groups.push(place);
        self.group_places.insert((topic.name.clone(), group.name.clone()), place);
        self.groups.push(group);
    }

    /// The group of `source`, with everything done that is due.
    pub(crate) fn current(&mut self, source: &Source, now: Instant) -> Result<&Group> {
        let place = self.group_place(source.topic(), source.group())?;
        self.tick(place, now);
        Ok(&self.groups[place])
    }

    /// Does what is due in a group.
    pub(crate) fn tick(&mut self, group: usize, now: Instant) {
        self.stored -= self.groups[group].tick(now);
    }

    /// Stores a message and gives it to every group of the topic.
    pub(crate) fn store(&mut self, topic: usize, entry: Entry) {
        let topic = &mut self.topics[topic];
        let entry = Arc::new(entry);
        for group in &topic.groups {
            self.groups[*group].push_fresh(Item::published(entry.clone()));
        }
        topic.store(entry);
        self.stored += 1;
    }

    pub(crate) fn wake_groups(&self, topic: usize) {
        for group in &self.topics[topic].groups {
            self.groups[*group].wake.notify_waiters();
        }
    }

    pub(crate) fn next_epoch(&mut self) -> u32 {
        // Epoch 0 is that of tokens that settle nothing.
        self.consumers = self.consumers.checked_add(1).unwrap_or(1);
        self.consumers
    }
}
