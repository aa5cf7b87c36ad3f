//! Topologies: made, verified or assumed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::protocol::AMQPSoftError;
use longshore_core::{
    Drift, DriftEntry, Error, ErrorKind, Group, Mode, Result, Start, TopicName, Topology,
};

use crate::ask::Questions;
use crate::delay;
use crate::drift::compare;
use crate::error::{BACKEND, error, is_soft, no_group, no_topic, unsupported};
use crate::make::{bind, declare as make};
use crate::names::GroupNames;
use crate::objects::{self, Object, Shape};
use crate::shared::Shared;
use crate::unrouted;

/// The server's own limit of message times.
const LONGEST_KEPT: Duration = Duration::from_millis(u32::MAX as u64);

/// Whether a topic's exchange, which exists, is as this backend makes it: only then what it cannot
/// route is kept. Where these credentials may not declare, it is not known, and not believed.
///
/// # Errors
/// Of the connection.
pub(crate) async fn is_ours(questions: &mut Questions<'_>, topic: &TopicName) -> Result<bool> {
    Ok(make(questions, &objects::topic(topic), true, false).await?.is_ok())
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
    // All is looked at first: where anything differs, nothing is made.
    let mut plan = Plan {
        questions: Questions::new(&shared.outgoing, shared.deadline()),
        mode: topology.mode,
        drift: Drift::default(),
        missing: Vec::new(),
        bind: Vec::new(),
    };
    let generation = shared.outgoing.current().map_or(0, |session| session.generation);
    let founded = generation != 0 && shared.founded.load(Ordering::Acquire) == generation;
    if !founded {
        for object in objects::foundation() {
            let missing = error(ErrorKind::NotFound, format!("{} does not exist", object.label));
            plan.look(object, missing).await?;
        }
    }
    for topic in topics {
        plan.look(objects::topic(topic), no_topic(topic)).await?;
    }
    for (index, group) in topology.groups.iter().enumerate() {
        plan.twice(&topology.groups[..index], group);
        let names = GroupNames::new(&group.topic, &group.name);
        for object in objects::group(&shared.config, &names, group.dead_letters) {
            plan.look(object, no_group(&group.topic, &group.name)).await?;
        }
        if group.dead_letters.is_none() {
            plan.no_letters(objects::unwanted_letters(&shared.config, &names)).await?;
        }
    }
    plan.refuse_drift()?;
    if topology.mode == Mode::Verify {
        return Ok(());
    }
    plan.make().await?;
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

fn is_held(why: &Error) -> bool {
    why.native().is_some_and(|native| is_soft(native, &AMQPSoftError::RESOURCELOCKED))
}

struct Plan<'a> {
    questions: Questions<'a>,
    mode: Mode,
    drift: Drift,
    missing: Vec<Object>,
    /// What is there, whose bindings may not be.
    bind: Vec<Object>,
}

impl Plan<'_> {
    fn refuse_drift(&mut self) -> Result<()> {
        let drift = std::mem::take(&mut self.drift);
        match drift.entries.is_empty() {
            true => Ok(()),
            false => Err(drift.into_error().with_backend(BACKEND)),
        }
    }

    async fn exists(&mut self, object: &Object) -> Result<bool> {
        let found = match object.shape {
            Shape::Exchange(_) => self.questions.has_exchange(&object.name).await,
            Shape::Queue => self.questions.queue(&object.name).await.map(|it| it.is_some()),
        };
        match found {
            // Held by another connection, it exists; the comparison says so.
            Err(why) if is_held(&why) => Ok(true),
            found => found.map_err(|why| why.with_context("object", object.label.clone())),
        }
    }

    async fn look(&mut self, object: Object, missing: Error) -> Result<()> {
        if self.exists(&object).await? {
            compare(&mut self.questions, &object, &mut self.drift).await?;
            self.bind.push(object);
        } else if self.mode == Mode::Verify {
            return Err(missing);
        } else {
            self.missing.push(object);
        }
        Ok(())
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
        if !self.exists(&object).await? {
            return Ok(());
        }
        let mut found = Drift::default();
        compare(&mut self.questions, &object, &mut found).await?;
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
    async fn make(&mut self) -> Result<()> {
        let missing = std::mem::take(&mut self.missing);
        for object in &missing {
            let made = make(&mut self.questions, object, true, false).await?;
            if made.is_err() {
                // Another process was faster, and with other settings.
                compare(&mut self.questions, object, &mut self.drift).await?;
                self.refuse_drift()?;
            }
        }
        for object in missing.iter().chain(&std::mem::take(&mut self.bind)) {
            bind(&mut self.questions, object).await?;
        }
        Ok(())
    }
}
