use std::fmt;

use longshore_core::{AckToken, Error, Result};

/// The table of deliveries in flight: the native message of each, reached by its token.
///
/// A slot is used again as soon as it is free. The token's sequence number, which is never used
/// again, tells the delivery that holds the slot from the ones before, so a stale token can reach
/// no other delivery: it is `LeaseLost`.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    next_seq: u64,
    bound: usize,
}

struct Slot<T> {
    epoch: u32,
    seq: u64,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty table that holds at most `bound` deliveries; `u32::MAX` at most.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let bound = bound.min(u32::MAX as usize);
        Self { slots: Vec::new(), free: Vec::new(), next_seq: 1, bound }
    }

    /// Adds a delivery of `epoch`.
    ///
    /// # Errors
    /// Gives `value` back where the table is full.
    pub fn insert(&mut self, epoch: u32, value: T) -> Result<AckToken, T> {
        if self.is_full() {
            return Err(value);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let filled = Slot { epoch, seq, value: Some(value) };
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = filled;
            slot
        } else {
            self.slots.push(filled);
            // The bound keeps the count of slots inside a u32.
            (self.slots.len() - 1) as u32
        };
        Ok(AckToken { epoch, slot, seq })
    }

    /// The delivery that `token` names.
    ///
    /// # Errors
    /// `LeaseLost` where it is settled, lost, or of another epoch.
    pub fn get(&self, token: AckToken) -> Result<&T> {
        self.slots
            .get(token.slot as usize)
            .filter(|slot| slot.is(token))
            .and_then(|slot| slot.value.as_ref())
            .ok_or_else(Error::lease_lost)
    }

    /// The delivery that `token` names, to be changed.
    ///
    /// # Errors
    /// As [`Slab::get`].
    pub fn get_mut(&mut self, token: AckToken) -> Result<&mut T> {
        self.slots
            .get_mut(token.slot as usize)
            .filter(|slot| slot.is(token))
            .and_then(|slot| slot.value.as_mut())
            .ok_or_else(Error::lease_lost)
    }

    /// Takes the delivery that `token` names out of the table.
    ///
    /// # Errors
    /// As [`Slab::get`].
    pub fn remove(&mut self, token: AckToken) -> Result<T> {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.is(token));
        let value = slot.and_then(|slot| slot.value.take()).ok_or_else(Error::lease_lost)?;
        self.free.push(token.slot);
        Ok(value)
    }

    /// Drops the delivery that `token` names, where it is still in the table; says whether it was.
    pub fn discard(&mut self, token: AckToken) -> bool {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.is(token));
        let Some(slot) = slot.filter(|slot| slot.value.is_some()) else { return false };
        // In its place: moving it out first would copy what nobody wants.
        slot.value = None;
        self.free.push(token.slot);
        true
    }

    /// Takes out all deliveries of `epoch`, in the order of their insertion. Its tokens are
    /// `LeaseLost` from now on.
    pub fn drop_epoch(&mut self, epoch: u32) -> Vec<(AckToken, T)> {
        self.extract(|token, _| token.epoch == epoch)
    }

    /// Takes out all deliveries that `wanted` picks, in the order of their insertion.
    pub fn extract(&mut self, mut wanted: impl FnMut(AckToken, &T) -> bool) -> Vec<(AckToken, T)> {
        let mut out = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let token = slot.token(index);
            if let Some(value) = slot.value.take_if(|value| wanted(token, value)) {
                self.free.push(token.slot);
                out.push((token, value));
            }
        }
        out.sort_unstable_by_key(|(token, _)| token.seq);
        out
    }

    /// All deliveries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (AckToken, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((slot.token(index), slot.value.as_ref()?)))
    }

    /// How many are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bound is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.bound
    }
}

impl<T> Slot<T> {
    fn is(&self, token: AckToken) -> bool {
        self.epoch == token.epoch && self.seq == token.seq
    }

    fn token(&self, index: usize) -> AckToken {
        AckToken { epoch: self.epoch, slot: index as u32, seq: self.seq }
    }
}

/// Counts only: what is in flight may hold what a log must not.
impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("len", &self.len())
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_stale_token_reaches_nobody_in_a_slot_used_again() {
        let mut slab = Slab::new(1);
        let first = slab.insert(1, "first").unwrap();
        assert_eq!(slab.insert(1, "refused"), Err("refused"));
        assert_eq!(slab.remove(first).unwrap(), "first");
        let second = slab.insert(1, "second").unwrap();
        assert_eq!(first.slot, second.slot);
        assert_eq!(slab.remove(first).unwrap_err().kind(), ErrorKind::LeaseLost);
        assert_eq!(
            slab.get(AckToken { epoch: 2, ..second }).unwrap_err().kind(),
            ErrorKind::LeaseLost
        );
        assert_eq!(slab.get(second).unwrap(), &"second");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32),
        Remove(usize),
        Discard(usize),
        DropEpoch(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1u32..4).prop_map(Op::Insert),
            4 => (0usize..64).prop_map(Op::Remove),
            2 => (0usize..64).prop_map(Op::Discard),
            1 => (1u32..4).prop_map(Op::DropEpoch),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_whose_keys_are_never_used_again(
            ops in proptest::collection::vec(op(), 0..200)
        ) {
            let mut slab = Slab::new(16);
            let mut model = HashMap::new();
            let mut given = Vec::new();
            for (value, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Insert(epoch) => match slab.insert(epoch, value) {
                        Ok(token) => {
                            prop_assert!(!given.contains(&token));
                            given.push(token);
                            model.insert(token, value);
                        }
                        Err(back) => {
                            prop_assert_eq!(back, value);
                            prop_assert_eq!(model.len(), 16);
                        }
                    },
                    Op::Remove(index) => {
                        if let Some(token) = given.get(index) {
                            prop_assert_eq!(slab.remove(*token).ok(), model.remove(token));
                        }
                    }
                    Op::Discard(index) => {
                        if let Some(token) = given.get(index) {
                            prop_assert_eq!(slab.discard(*token), model.remove(token).is_some());
                        }
                    }
                    Op::DropEpoch(epoch) => {
                        let dropped = slab.drop_epoch(epoch);
                        prop_assert!(dropped.is_sorted_by_key(|(token, _)| token.seq));
                        for (token, value) in &dropped {
                            prop_assert_eq!(model.remove(token), Some(*value));
                        }
                        prop_assert!(model.keys().all(|token| token.epoch != epoch));
                    }
                }
                prop_assert_eq!(slab.len(), model.len());
                prop_assert_eq!(&slab.iter().map(|(t, v)| (t, *v)).collect::<HashMap<_, _>>(), &model);
            }
        }
    }
}
