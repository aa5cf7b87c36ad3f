//! Deliveries in flight of one lane: who holds what, and until when.

use std::time::Duration;

use longshore_core::{AckToken, InstanceId, Result};
use longshore_driver::Slab;
use tokio::time::Instant;

use crate::error::{closed, lease_lost};

pub(crate) struct Flight<T> {
    slab: Slab<Held<T>>,
    members: Vec<Member>,
    /// No lease ends before this. A lower bound, so that neither an ack nor an extension has to
    /// touch it: it costs at most one needless look per lease.
    next_expiry: Option<Instant>,
}

struct Held<T> {
    value: T,
    expires: Instant,
}

/// An open consumer.
pub(crate) struct Member {
    pub(crate) epoch: u32,
    pub(crate) client: u64,
    pub(crate) instance: InstanceId,
    /// The instance of the connection, which may carry consumers of others.
    pub(crate) connection: InstanceId,
    pub(crate) prefetch: usize,
    /// The prefetch that it was opened with.
    pub(crate) most: usize,
    pub(crate) held: usize,
    /// Its process played dead: it is heard no more, and its leases run out.
    pub(crate) crashed: bool,
}

impl<T> Flight<T> {
    pub(crate) fn new() -> Self {
        Self { slab: Slab::new(usize::MAX), members: Vec::new(), next_expiry: None }
    }

    pub(crate) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    /// How many more deliveries the member may hold.
    pub(crate) fn room(&self, epoch: u32) -> Result<usize> {
        let member = self.member(epoch).filter(|member| !member.crashed);
        let member = member.ok_or_else(|| closed("consumer"))?;
        Ok(member.prefetch.saturating_sub(member.held))
    }

    pub(crate) fn set_prefetch(&mut self, epoch: u32, prefetch: usize) {
        if let Some(member) = self.member_mut(epoch) {
            member.prefetch = prefetch.min(member.most);
        }
    }

    pub(crate) fn hand_over(&mut self, epoch: u32, value: T, expires: Instant) -> Option<AckToken> {
        let token = self.slab.insert(epoch, Held { value, expires }).ok()?;
        self.next_expiry = Some(self.next_expiry.map_or(expires, |next| next.min(expires)));
        if let Some(member) = self.member_mut(epoch) {
            member.held += 1;
        }
        Some(token)
    }

    pub(crate) fn get(&self, token: AckToken) -> Result<&T> {
        self.slab.get(token).map(|held| &held.value)
    }

    /// Whether the delivery is still its member's to settle.
    pub(crate) fn check(&self, token: AckToken) -> Result<()> {
        let heard = self.member(token.epoch).is_some_and(|member| !member.crashed);
        if heard && self.slab.get(token).is_ok() { Ok(()) } else { Err(lease_lost()) }
    }

    /// Takes a delivery that is settled, and says whether its member was full until now.
    pub(crate) fn take(&mut self, token: AckToken) -> Result<(T, bool)> {
        self.check(token)?;
        let value = self.slab.remove(token)?.value;
        if self.slab.is_empty() {
            self.next_expiry = None;
        }
        let was_full = self.member_mut(token.epoch).is_some_and(|member| {
            member.held -= 1;
            member.held + 1 == member.prefetch
        });
        Ok((value, was_full))
    }

    pub(crate) fn extend(&mut self, token: AckToken, now: Instant, by: Duration) -> Result<()> {
        self.check(token)?;
        let expires = after(now, by);
        self.slab.get_mut(token)?.expires = expires;
        self.next_expiry = Some(self.next_expiry.map_or(expires, |next| next.min(expires)));
        Ok(())
    }

    /// Takes everything whose lease is over, in the order of the hand-overs.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<T> {
        if self.next_expiry.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let lost = self.slab.extract(|_, held| held.expires <= now);
        self.next_expiry = self.slab.iter().map(|(_, held)| held.expires).min();
        self.give_up(lost)
    }

    /// Takes out a member and everything it holds. One that crashed stays until its leases are
    /// over: nobody knows that it is dead.
    pub(crate) fn leave(&mut self, epoch: u32) -> Vec<T> {
        let Some(index) = self.members.iter().position(|m| m.epoch == epoch && !m.crashed) else {
            return Vec::new();
        };
        let lost = self.slab.drop_epoch(epoch);
        let values = self.give_up(lost);
        self.members.remove(index);
        if self.slab.is_empty() {
            self.next_expiry = None;
        }
        values
    }

    pub(crate) fn crash(&mut self, dead: impl Fn(&Member) -> bool) {
        self.members.iter_mut().filter(|member| dead(member)).for_each(|m| m.crashed = true);
        self.bury();
    }

    pub(crate) fn is_member(&self, epoch: u32) -> bool {
        self.member(epoch).is_some()
    }

    pub(crate) fn epochs_of(&self, client: u64) -> Vec<u32> {
        self.members.iter().filter(|m| m.client == client).map(|m| m.epoch).collect()
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, held)| &held.value)
    }

    fn give_up(&mut self, lost: Vec<(AckToken, Held<T>)>) -> Vec<T> {
        for (token, _) in &lost {
            if let Some(member) = self.member_mut(token.epoch) {
                member.held -= 1;
            }
        }
        self.bury();
        lost.into_iter().map(|(_, held)| held.value).collect()
    }

    /// Forgets the dead whose leases are over.
    fn bury(&mut self) {
        self.members.retain(|member| !member.crashed || member.held > 0);
    }

    fn member(&self, epoch: u32) -> Option<&Member> {
        self.members.iter().find(|member| member.epoch == epoch)
    }

    fn member_mut(&mut self, epoch: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.epoch == epoch)
    }
}

/// `now + by`, or as late as the clock can tell.
pub(crate) fn after(now: Instant, by: Duration) -> Instant {
    // Thirty years, as tokio's own far future: beyond it some clocks overflow.
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    now + by.min(FAR)
}
