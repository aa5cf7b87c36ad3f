//! How much the broker may deliver: begun, ended, and begun anew, as the prefetch says.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use lapin::message::Delivery;
use lapin::options::BasicCancelOptions;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Came, Intake, Stage, advance};
use crate::attach::Attach;
use crate::consumer::give_all_back;
use crate::reading::{Kind, Reading};
use crate::release;

/// When the broker has answered the end of a consumer, or will not.
const ANSWER: Duration = Duration::from_secs(5);

/// What an acknowledgement made room for comes within this, or the queue is empty.
const COMES: Duration = Duration::from_millis(50);

impl Intake {
    /// Begins what the prefetch asks for.
    pub(super) async fn steer(&mut self, reading: &Arc<Reading>) {
        let (wanted, idle, room, kept) = {
            let flight = reading.flight();
            (flight.prefetch(), flight.is_empty(), flight.room(), flight.channel().cloned())
        };
        match &self.stage {
            // A lane for one keeps its place until what it holds is settled: the next member would
            // run a second suspect beside it.
            Stage::Reading { .. } if wanted == 0 && idle => {
                self.stop(reading).await;
                self.excess(reading);
            }
            Stage::Idle if room > self.unseen.len() && self.link.borrow().up => {
                if self.pause.is_some_and(|pause| pause > Instant::now()) {
                    return;
                }
                let kept = kept.map(|channel| (self.generation, channel));
                let attach = Attach { reading: reading.clone(), kept, credit: wanted };
                self.stage = Stage::Opening { attempt: attach.run().boxed(), credit: wanted };
            }
            // The client library drops what the broker had sent before it knew of the end, and only
            // the end of the channel gives that back.
            Stage::Idle if wanted == 0 && idle && self.unseen.is_empty() && kept.is_some() => {
                let channel = reading.flight().end();
                if let Some(channel) = channel {
                    let _ = timeout(ANSWER, give_all_back(&channel)).await;
                }
            }
            _ => {}
        }
    }

    /// Makes the broker's credit what the prefetch says, and gives what is beyond it.
    pub(crate) async fn recall(&mut self, reading: &Arc<Reading>) -> Vec<Delivery> {
        let (wanted, held) = {
            let flight = reading.flight();
            (flight.prefetch(), !flight.is_empty())
        };
        let credit = match &self.stage {
            Stage::Idle => wanted,
            Stage::Opening { credit, .. } | Stage::Reading { credit, .. } => *credit,
        };
        let later = reading.kind == Kind::Suspects && held && wanted == 0;
        if credit != wanted && !later {
            self.stop(reading).await;
        }
        self.beyond(reading)
    }

    /// Ends the consumer and gives what came by it and was not handed over.
    pub(crate) async fn end(&mut self, reading: &Reading) -> Vec<Delivery> {
        self.stop(reading).await;
        self.unseen.drain(..).collect()
    }

    /// What was read and may not be handed over.
    fn beyond(&mut self, reading: &Reading) -> Vec<Delivery> {
        let room = reading.flight().room().min(self.unseen.len());
        self.unseen.split_off(room).into()
    }

    /// Gives back what came after the order to end.
    fn excess(&mut self, reading: &Arc<Reading>) {
        let beyond = self.beyond(reading);
        if !beyond.is_empty() {
            tokio::spawn(release::give_back(reading.clone(), beyond));
        }
    }

    /// Reads what fills the room that was just made. A broker that has no more credit sends nothing
    /// while its consumer ends, where the client library would drop it.
    async fn let_come(&mut self, reading: &Reading) {
        let by = reading.flight().written() + COMES;
        while let Stage::Reading { credit, ending: false, .. } = &self.stage {
            if reading.flight().len() + self.unseen.len() >= *credit {
                return;
            }
            match timeout_at(by, advance(&mut self.stage)).await {
                Ok(Came::Delivery(next)) => self.take(reading, next),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Tells the broker to deliver no more on this channel, and reads what it had sent before.
    ///
    /// # Cancel safety
    /// The order stands; what is read later stays in `unseen`.
    pub(crate) async fn stop(&mut self, reading: &Reading) {
        let by = Instant::now() + ANSWER;
        if let Stage::Opening { attempt, .. } = &mut self.stage {
            match timeout_at(by, attempt).await {
                Ok(result) => self.attached(reading, result),
                Err(_) => self.stage = Stage::Idle,
            }
        }
        self.let_come(reading).await;
        let Some(channel) = reading.flight().channel().cloned() else { return };
        if let Stage::Reading { stream, ending, .. } = &mut self.stage
            && !std::mem::replace(ending, true)
        {
            let cancel = channel.basic_cancel(stream.tag(), BasicCancelOptions::default());
            // Its answer ends the stream, which is read below.
            let _ = timeout(ANSWER, cancel).await;
        }
        while matches!(self.stage, Stage::Reading { .. }) {
            match timeout_at(by, advance(&mut self.stage)).await {
                Ok(Came::Delivery(next)) => self.take(reading, next),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}
