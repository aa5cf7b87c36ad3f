//! Topologies: made, verified or assumed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use lapin::protocol::AMQPSoftError;
use longshore_core::{
    Drift, DriftEntry, Error, ErrorKind, Group, Mode, Result, Start, TopicName, Topology,
};

use tokio::time::Instant;

use crate::ask::Questions;
use crate::delay;
use crate::drift::compare;
use crate::error::{self, BACKEND, error, is_soft, no_group, no_topic, unsupported};
use crate::make::{Ask, OURS, bind_all, declare as ask, declare_all};
use crate::names::GroupNames;
use crate::objects::{self, Object};
use crate::shared::Shared;
use crate::unrouted;

/// Questions that are under way at a time, each on a channel of its own.
const AT_ONCE: usize = 16;
/// The server's own limit of message times.
const LONGEST_KEPT: Duration = Duration::from_millis(u32::MAX as u64);

/// Whether a topic's exchange, which exists, is as this backend makes it: only then what it cannot
/// route is kept. Where these credentials may not declare, it is not known, and not believed.
///
/// # Errors
/// Of the connection.
pub(crate) async fn is_ours(questions: &mut Questions<'_>, topic: &TopicName) -> Result<bool> {
    Ok(ask(questions, &objects::topic(topic), OURS).await?.is_ok())
}

pub(crate) async fn declare(shared: &Shared, topology: &Topology) -> Result<()> {
    for group in &topology.groups {
        shared.longest.note(&GroupNames::new(&group.topic, &group.name), group.longest_delay);
    }
    if topology.mode == Mode::Assume {
        return Ok(());
    }
    let made = run(shared, topology).await;
    made.map_err(|error| error.with_operation("broker.declare"))
}

async fn run(shared: &Shared, topology: &Topology) -> Result<()> {
    topology.groups.iter().try_for_each(check)?;
    let mut topics: Vec<&TopicName> = Vec::new();
    let named = topology.topics.iter().map(|topic| &topic.name);
    for topic in named.chain(topology.groups.iter().map(|group| &group.topic)) {
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    let generation = shared.outgoing.current().map_or(0, |session| session.generation);
    let founded = generation != 0 && shared.founded.load(Ordering::Acquire) == generation;
    let mut plan =
        Plan { shared, mode: topology.mode, wanted: Vec::new(), drift: Drift::default() };
    if !founded {
        for object in objects::foundation() {
            let missing = error(ErrorKind::NotFound, format!("{} does not exist", object.label));
            plan.wanted.push((object, missing));
        }
    }
    plan.wanted.extend(topics.iter().map(|topic| (objects::topic(topic), no_topic(topic))));
    for (index, group) in topology.groups.iter().enumerate() {
        plan.twice(&topology.groups[..index], group);
        let names = GroupNames::new(&group.topic, &group.name);
        for object in objects::group(&shared.config, &names, group.dead_letters) {
            plan.wanted.push((object, no_group(&group.topic, &group.name)));
        }
    }
    // All is looked at first: where anything differs, nothing is made.
    let missing = plan.look().await?;
    for group in topology.groups.iter().filter(|group| group.dead_letters.is_none()) {
        let names = GroupNames::new(&group.topic, &group.name);
        plan.no_letters(objects::unwanted_letters(&shared.config, &names)).await?;
    }
    plan.refuse_drift()?;
    if topology.mode == Mode::Verify {
        return Ok(());
    }
    plan.make(&missing).await?;
    shared.founded.store(generation, Ordering::Release);
    for group in &topology.groups {
        let names = GroupNames::new(&group.topic, &group.name);
        unrouted::bring_back(shared, &names.queue).await?;
    }
    Ok(())
}

/// What no server could keep.
fn check(group: &Group) -> Result<()> {
    let Group { topic, name, .. } = group;
    let wrong = |text: &str| {
        Err(Error::config(format!("group `{topic}.{name}`: {text}")).with_backend(BACKEND))
    };
    for (setting, value) in [("lease", Some(group.lease)), ("dead_letters", group.dead_letters)] {
        if value == Some(Duration::ZERO) {
            return wrong(&format!("{setting} is zero"));
        }
    }
    if group.dead_letters.is_some_and(|kept| kept > LONGEST_KEPT) {
        return wrong("the server keeps dead letters for 49 days at most");
    }
    if group.start == Start::Earliest {
        return Err(unsupported("a group that starts with messages from before its declaration"));
    }
    if group.longest_delay > delay::LONGEST {
        let most = delay::LONGEST;
        return Err(unsupported(&format!("a retry after more than {most:?}")));
    }
    Ok(())
}

struct Plan<'a> {
    shared: &'a Shared,
    mode: Mode,
    /// In an order in which each may be made, and what it is called where it is missing.
    wanted: Vec<(Object, Error)>,
    drift: Drift,
}

impl Plan<'_> {
    /// Each part of a declaration has a deadline of its own.
    fn questions(&self) -> Questions<'_> {
        Questions::new(&self.shared.outgoing, self.shared.deadline())
    }

    fn refuse_drift(&mut self) -> Result<()> {
        let drift = std::mem::take(&mut self.drift);
        match drift.entries.is_empty() {
            true => Ok(()),
            false => Err(drift.into_error().with_backend(BACKEND)),
        }
    }

    /// The places of what is missing.
    async fn look(&mut self) -> Result<Vec<usize>> {
        if self.is_all_there().await? {
            return Ok(Vec::new());
        }
        // Something is missing or differs, which closes a channel: each on one of its own.
        let (shared, deadline) = (self.shared, self.shared.deadline());
        let mut looks = Vec::with_capacity(self.wanted.len());
        for (object, _) in &self.wanted {
            looks.push(look_at(shared, object, deadline));
        }
        let found = stream::iter(looks).buffered(AT_ONCE).collect::<Vec<_>>().await;
        let mut missing = Vec::new();
        for (place, found) in found.into_iter().enumerate() {
            match found? {
                Some(differences) => self.drift.entries.extend(differences.entries),
                None if self.mode == Mode::Verify => return Err(self.wanted[place].1.clone()),
                None => missing.push(place),
            }
        }
        Ok(missing)
    }

    /// Whether everything exists as it is wanted: in two round trips, as with every start but the
    /// first.
    async fn is_all_there(&self) -> Result<bool> {
        let objects: Vec<_> = self.wanted.iter().map(|(object, _)| object).collect();
        let mut questions = self.questions();
        let there = |answers: Vec<lapin::Result<()>>| answers.iter().all(Result::is_ok);
        // Only of what exists: to compare is to declare, and would make it.
        Ok(there(declare_all(&mut questions, &objects, Ask::Exists).await?)
            && there(declare_all(&mut questions, &objects, OURS).await?))
    }

    /// What the same topology says of this group further up.
    fn twice(&mut self, before: &[Group], group: &Group) {
        let same = |other: &&Group| (&other.topic, &other.name) == (&group.topic, &group.name);
        let other = before.iter().find(same);
        if let Some(other) = other.filter(|other| other.dead_letters != group.dead_letters) {
            self.drift.entries.push(DriftEntry {
                object: format!("group {}.{}", group.topic, group.name),
                setting: "dead_letters",
                wanted: format!("{:?}", group.dead_letters),
                found: format!("{:?}", other.dead_letters),
            });
        }
    }

    /// A queue that exists although none is wanted: its letters would be forgotten.
    async fn no_letters(&mut self, object: Object) -> Result<()> {
        let found = look_at(self.shared, &object, self.shared.deadline()).await?;
        let Some(found) = found else { return Ok(()) };
        let kept = found.entries.into_iter().find(|entry| entry.setting == "dead_letters");
        self.drift.entries.push(DriftEntry {
            object: object.label.trim_end_matches(".dlq").to_owned(),
            setting: "dead_letters",
            wanted: "none".to_owned(),
            found: kept.map_or_else(|| "for ever".to_owned(), |entry| entry.found),
        });
        Ok(())
    }

    /// Everything first, then what leads there, in the order of the plan.
    async fn make(&mut self, missing: &[usize]) -> Result<()> {
        let made: Vec<_> = missing.iter().map(|place| &self.wanted[*place].0).collect();
        let answers = declare_all(&mut self.questions(), &made, OURS).await?;
        let mut drift = Drift::default();
        if answers.iter().any(Result::is_err) {
            // Another process was faster with other settings, or something is not allowed.
            let mut questions = self.questions();
            for object in made {
                compare(&mut questions, object, &mut drift).await?;
            }
        }
        self.drift = drift;
        self.refuse_drift()?;
        let all: Vec<_> = self.wanted.iter().map(|(object, _)| object).collect();
        bind_all(&mut self.questions(), &all).await
    }
}

/// The differences of an object that exists, or nothing.
async fn look_at(shared: &Shared, object: &Object, deadline: Instant) -> Result<Option<Drift>> {
    let mut questions = Questions::new(&shared.outgoing, deadline);
    match ask(&mut questions, object, Ask::Exists).await? {
        Ok(()) => {}
        Err(native) if is_soft(&native, &AMQPSoftError::NOTFOUND) => return Ok(None),
        // Held by another connection, it exists; the comparison says so.
        Err(native) if is_soft(&native, &AMQPSoftError::RESOURCELOCKED) => {}
        Err(native) => {
            return Err(error::native(native).with_context("object", object.label.clone()));
        }
    }
    let mut drift = Drift::default();
    compare(&mut questions, object, &mut drift).await?;
    Ok(Some(drift))
}
