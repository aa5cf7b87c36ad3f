//! Deliveries in flight: the native message of each, and the channel that holds them.
//!
//! An epoch is one channel. When it ends, the broker gives everything on it back to the queue, so
//! its tokens are `LeaseLost` from then on.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use lapin::{BasicProperties, Channel};
use longshore_core::{AckToken, Error, Result};
use longshore_driver::Slab;
use tokio::time::Instant;

use crate::acks::{Acks, Written};
use crate::error::{self, lease_lost};

/// Copies that cannot be written are waited for so long, then all beyond half of the prefetch go
/// back: the other half must stay free for what can be handled.
const PATIENCE: Duration = Duration::from_secs(30);
/// No delivery is held longer than this for a copy that cannot be written: the server's own limit
/// (30 min by default) closes the channel, and returns the neighbours too.
const LONGEST: Duration = Duration::from_secs(600);

/// One delivery.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) tag: u64,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// A move of it is under way: a second one would write a second copy.
    pub(crate) moving: bool,
    /// Since when its copy cannot be written.
    pub(crate) stuck: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Flight {
    slab: Slab<Held>,
    prefetch: usize,
    epoch: u32,
    acks: Option<Acks>,
    /// The highest tag that was read from the channel.
    last: u64,
    /// When something was last settled: the broker may be filling the room that it made.
    written: Instant,
    /// Epochs that were lost and of which the runtime has not heard.
    lost: Vec<(u32, Error)>,
    /// Letters that were passed over and are held, by what they are, with the epoch that holds
    /// them.
    passed: HashMap<u64, u32>,
}

impl Flight {
    pub(crate) fn new(prefetch: usize) -> Self {
        Self {
            slab: Slab::new(prefetch),
            prefetch,
            epoch: 0,
            acks: None,
            last: 0,
            written: Instant::now(),
            lost: Vec::new(),
            passed: HashMap::new(),
        }
    }

    pub(crate) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.slab.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(crate) fn written(&self) -> Instant {
        self.written
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// At most what it was made with: the table grows no further.
    pub(crate) fn set_prefetch(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
    }

    /// Deliveries come by `channel` from now on.
    pub(crate) fn attach(&mut self, channel: Channel) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.acks = Some(Acks::new(channel));
        self.last = 0;
    }

    /// Whether there is a channel that was not given up.
    pub(crate) fn is_attached(&self) -> bool {
        self.acks.is_some()
    }

    /// The channel, where it still serves.
    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.acks.as_ref().map(Acks::channel).filter(|channel| channel.status().connected())
    }

    /// The channel is gone. The runtime hears of it where it holds something.
    pub(crate) fn detach(&mut self, why: &Error) {
        if self.acks.take().is_none() {
            return;
        }
        let epoch = self.epoch;
        if !self.slab.drop_epoch(epoch).is_empty() {
            self.lost.push((epoch, why.clone()));
        }
    }

    /// Ends the channel of `epoch`, where it is still the present one.
    pub(crate) fn give_up(&mut self, epoch: u32, why: &Error) {
        if self.epoch == epoch {
            self.detach(why);
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn take_lost(&mut self) -> Vec<(u32, Error)> {
        std::mem::take(&mut self.lost)
    }

    /// `tag` was read from the channel. The broker numbers without gaps: what is missing before it
    /// came between two consumers, where the client library drops it, and goes back.
    pub(crate) fn delivered(&mut self, tag: u64) {
        let Some(acks) = &mut self.acks else { return };
        let missed = self.last + 1..tag;
        let any = !missed.is_empty();
        for tag in missed {
            acks.delivered(tag);
            acks.give_back(tag);
        }
        acks.delivered(tag);
        self.last = self.last.max(tag);
        if any {
            // Where the channel is gone, so are they.
            let _ = self.write();
        }
    }

    /// Nothing where the channel was given up: the broker gives the message to somebody else.
    pub(crate) fn insert(&mut self, held: Held) -> Option<AckToken> {
        self.acks.as_ref()?;
        self.slab.insert(self.epoch, held).ok()
    }

    /// A delivery whose channel still serves.
    pub(crate) fn get(&mut self, token: AckToken) -> Result<&mut Held> {
        if self.channel().is_none() {
            self.detach(&error::channel_gone());
        }
        self.slab.get_mut(token).map_err(|_| lease_lost())
    }

    /// Settles a delivery; the frame leaves with the next [`Flight::write`].
    pub(crate) fn ack(&mut self, token: AckToken) -> Result<()> {
        let held = self.slab.remove(token).map_err(|_| lease_lost())?;
        self.ack_unseen(held.tag);
        Ok(())
    }

    /// Gives a delivery back; the frame leaves with the next [`Flight::write`].
    pub(crate) fn give_back(&mut self, token: AckToken) -> Result<()> {
        let held = self.slab.remove(token).map_err(|_| lease_lost())?;
        self.give_back_unseen(held.tag);
        Ok(())
    }

    pub(crate) fn ack_unseen(&mut self, tag: u64) {
        if let Some(acks) = &mut self.acks {
            acks.ack(tag, Instant::now());
        }
    }

    pub(crate) fn give_back_unseen(&mut self, tag: u64) {
        if let Some(acks) = &mut self.acks {
            acks.give_back(tag);
        }
    }

    /// Writes what was decided, in one go.
    ///
    /// # Errors
    /// `LeaseLost`: the channel is gone, and with it everything that it held.
    pub(crate) fn write(&mut self) -> Result<Option<Written>> {
        let Some(acks) = &mut self.acks else { return Ok(None) };
        self.written = Instant::now();
        acks.write().map_err(|native| {
            let why = error::native(native);
            self.detach(&why);
            lease_lost().with_source(why)
        })
    }

    /// The copy of a delivery could not be written. Says whether it is to go back to its queue:
    /// beyond half of the prefetch, or held for too long.
    pub(crate) fn stuck(&mut self, token: AckToken) -> bool {
        let half = (self.prefetch / 2).max(1);
        let Ok(held) = self.slab.get_mut(token) else { return false };
        held.moving = false;
        let since = *held.stuck.get_or_insert_with(Instant::now);
        let stuck = self.slab.iter().filter(|(_, held)| held.stuck.is_some()).count();
        let waited = since.elapsed();
        (waited >= PATIENCE && stuck > half) || waited >= LONGEST
    }

    /// Keeps a letter that was passed over out of everybody's sight until the channel ends.
    pub(crate) fn pass_over(&mut self, token: AckToken, letter: u64) {
        self.passed.insert(letter, self.epoch);
        // Its tag stays open: nobody acks it, and the end of the channel gives it back.
        let _ = self.slab.remove(token);
    }

    /// How many letters are kept so.
    pub(crate) fn passed_over(&self) -> usize {
        self.passed.len()
    }

    /// Whether a letter is one that was passed over before its channel was lost.
    pub(crate) fn was_passed_over(&mut self, letter: u64) -> bool {
        let epoch = self.epoch;
        match self.passed.get_mut(&letter) {
            Some(before) if *before != epoch => {
                *before = epoch;
                true
            }
            _ => false,
        }
    }

    /// Whether copies are being written.
    pub(crate) fn is_moving(&self) -> bool {
        self.slab.iter().any(|(_, held)| held.moving)
    }

    pub(crate) fn end(&mut self) -> Option<Channel> {
        let channel = self.channel().cloned();
        self.detach(&error::closed("consumer"));
        channel
    }
}
