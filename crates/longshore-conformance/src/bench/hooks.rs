//! What a check asks of the harness. A hook that is missing ends the check as "not run".

use longshore_core::{GroupName, Result, TopicName};
use longshore_runtime::{ClientOptions, Registry};

use super::{Bench, setup};
use crate::check::{Outcome, Stop};
use crate::child::{End, Errand};
use crate::harness::{Access, Act, Foreign};
use crate::member::Member;

impl Bench {
    /// Plays the death of a member's process.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness has no such hook.
    pub async fn crash(&self, member: &Member) -> Outcome {
        match self.harness.crash(&**member.client.broker(), &member.instance) {
            Some(crash) => Ok(crash.await?),
            None => Err(missing("crash an instance")),
        }
    }

    /// Publishes as another program would.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness has no such hook.
    pub async fn inject(&self, member: &Member, message: Foreign) -> Outcome {
        Ok(self.try_inject(member, message).await??)
    }

    /// Publishes as another program would, and gives the broker's answer: it may refuse.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness has no such hook.
    pub async fn try_inject(&self, member: &Member, message: Foreign) -> Outcome<Result<()>> {
        match self.harness.inject(&**member.client.broker(), message) {
            Some(injected) => Ok(injected.await),
            None => Err(missing("inject a foreign message")),
        }
    }

    /// Does something to the server. `false`: there is none here, as the harness declares.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where there is one, and the harness has no such hook.
    pub async fn server(&self, act: Act) -> Outcome<bool> {
        if self.harness.not_applicable("K1").is_some() {
            return Ok(false);
        }
        match self.harness.server(&self.server, act) {
            Some(done) => done.await.map(|()| true).map_err(Stop::from),
            None => Err(missing("stop and start the server")),
        }
    }

    /// Ends the server and starts it again. `false`: there is none here.
    ///
    /// # Errors
    /// As [`Bench::server`].
    pub async fn restart(&self) -> Outcome<bool> {
        Ok(self.server(Act::Stop).await? && self.server(Act::Start).await?)
    }

    /// How many messages of a topic without a group the broker has put aside.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness has no such hook.
    pub async fn parked(&self, member: &Member, topic: &TopicName) -> Outcome<u64> {
        match self.harness.parked(&**member.client.broker(), topic) {
            Some(count) => Ok(count.await?),
            None => Err(missing("count parked messages")),
        }
    }

    /// Runs a check's move in a process of its own, which dies at `step`.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness gives no URL, [`Stop::Failed`] where it cannot be started.
    pub(crate) async fn child(
        &self,
        code: &str,
        step: &str,
        topic: &TopicName,
        group: &GroupName,
    ) -> Outcome<End> {
        let Some(url) = self.harness.url(&self.server, Access::Full) else {
            return Err(missing("give the URL of its server"));
        };
        let ledger = std::env::temp_dir().join(format!("{topic}.ledger"));
        let errand = Errand {
            check: code.to_owned(),
            step: step.to_owned(),
            url,
            topic: topic.to_string(),
            group: group.to_string(),
            ledger,
        };
        let ended = tokio::task::spawn_blocking(move || errand.send()).await;
        match ended {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(error)) => Err(Stop::Failed(format!("no child process: {error}"))),
            Err(error) => Err(Stop::Failed(format!("no wait for a child process: {error}"))),
        }
    }

    /// Connects as a program does: by a URL, through a registry that knows this backend.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where the harness gives no URL.
    pub async fn connect(&self, access: Access) -> Outcome<Result<Member>> {
        let Some(url) = self.harness.url(&self.server, access) else {
            return Err(missing("give the URL of its server"));
        };
        let mut registry = Registry::new();
        for scheme in self.info.schemes {
            let harness = self.harness.clone();
            registry = registry.register(scheme, move |url, setup| {
                let opening = harness.open(url, setup);
                async move {
                    let lacks = || longshore_core::Error::config("the harness opens no URL");
                    opening.ok_or_else(lacks)?.await
                }
            });
        }
        let setup = setup(&self.clock);
        let answer = match (registry.connect(&url, setup.clone()).await, &self.world) {
            (Ok(broker), _) => Ok(self.enter(broker, setup, ClientOptions::default())),
            (Err(error), Some(world)) => Err(world.fault.refused(error)),
            (Err(error), None) => Err(error),
        };
        Ok(answer)
    }
}

fn missing(what: &str) -> Stop {
    Stop::NotRun(format!("the harness cannot {what}"))
}
