//! Who waits for which confirmation: places that are used again and again, each time in a new turn.
//!
//! No I/O, no clock and no waiting here: a state machine behind one lock.

use std::task::{Context, Waker};

use longshore_core::Result;
use tokio::time::Instant;

/// What the server said of one message: whether it was a duplicate.
pub(crate) type Answer = Result<bool>;

/// One wait. A place is taken again by others; the turn says whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    place: usize,
    number: u64,
}

/// The places are in the low bits of a token. 65,536 are far more than may be taken at a time.
const PLACE_BITS: u32 = 16;

impl Turn {
    /// The last token of the reply subject.
    pub(crate) fn token(self) -> u64 {
        self.number << PLACE_BITS | self.place as u64
    }

    pub(crate) fn of_token(token: &str) -> Option<Self> {
        let token = u64::from_str_radix(token, 16).ok()?;
        let place = usize::try_from(token & ((1 << PLACE_BITS) - 1)).ok()?;
        Some(Self { place, number: token >> PLACE_BITS })
    }
}

/// What a look at a place showed.
#[derive(Debug)]
pub(crate) enum Look {
    /// The place is free again.
    Answer(Answer),
    /// Something happened on the connection since `seen`.
    News,
    Late,
    Wait,
}

/// What became of a place that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was not this turn's any more.
    Before,
    Free,
    Counted,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Waiting {
        /// Of the task that waits, and since when it does so in vain.
        waiter: Option<(Waker, Instant)>,
    },
    /// Nobody waits, and an answer may come. Free at that time.
    Left(Instant),
    Answered(Answer),
}

#[derive(Debug, Default)]
struct Slot {
    turn: u64,
    state: State,
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// How often something happened that those who wait want to know of.
    news: u64,
    /// No answer comes any more.
    pub(crate) over: bool,
    /// Whether [`Slots::sweep`] is called from time to time.
    pub(crate) swept: bool,
}

impl Slots {
    pub(crate) fn take(&mut self) -> Turn {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[place];
        slot.turn += 1;
        slot.state = State::Waiting { waiter: None };
        Turn { place, number: slot.turn }
    }

    /// The slot, where it is still this turn's.
    fn get(&mut self, turn: Turn) -> Option<&mut Slot> {
        self.slots.get_mut(turn.place).filter(|slot| slot.turn == turn.number)
    }

    fn release(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        // Whatever comes for the old turn is nobody's from now on.
        slot.turn += 1;
        slot.state = State::Free;
        self.free.push(place);
    }

    /// Takes an answer in. Gives whom to wake, and whether a place became free.
    pub(crate) fn answer(&mut self, turn: Turn, answer: Answer) -> (Option<Waker>, bool) {
        let Some(slot) = self.get(turn) else { return (None, false) };
        match std::mem::take(&mut slot.state) {
            State::Waiting { waiter } => {
                slot.state = State::Answered(answer);
                (waiter.map(|(waker, _)| waker), false)
            }
            State::Left(_) => {
                self.release(turn.place);
                (None, true)
            }
            // The first answer counts.
            State::Answered(first) => {
                slot.state = State::Answered(first);
                (None, false)
            }
            State::Free => (None, false),
        }
    }

    /// An answer that has come already; the place is free then.
    pub(crate) fn now(&mut self, turn: Turn) -> Option<Answer> {
        let slot = self.get(turn)?;
        match std::mem::take(&mut slot.state) {
            State::Answered(answer) => {
                self.release(turn.place);
                Some(answer)
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Looks for the answer, and otherwise leaves a waker behind.
    pub(crate) fn look(
        &mut self,
        turn: Turn,
        cx: &Context<'_>,
        deadline: Instant,
        seen: &mut Option<u64>,
    ) -> Look {
        if let Some(answer) = self.now(turn) {
            return Look::Answer(answer);
        }
        if *seen != Some(self.news) {
            *seen = Some(self.news);
            return Look::News;
        }
        if Instant::now() >= deadline {
            return Look::Late;
        }
        if let Some(Slot { state: State::Waiting { waiter }, .. }) = self.get(turn) {
            match waiter {
                Some((waker, until)) if waker.will_wake(cx.waker()) => *until = deadline,
                _ => *waiter = Some((cx.waker().clone(), deadline)),
            }
        }
        Look::Wait
    }

    /// Gives a place up. Where `until` is given, an answer may still come for what was sent: the
    /// place stays counted until then, and the sweep has to come for it.
    pub(crate) fn leave(&mut self, turn: Turn, until: Option<Instant>) -> Left {
        let Some(slot) = self.get(turn) else { return Left::Before };
        match (&slot.state, until) {
            (State::Waiting { .. }, Some(until)) => {
                slot.state = State::Left(until);
                Left::Counted
            }
            _ => {
                self.release(turn.place);
                Left::Free
            }
        }
    }

    /// Everyone who waits, to be woken: the connection is another.
    pub(crate) fn tell(&mut self) -> Vec<Waker> {
        self.news += 1;
        let waiters = self.slots.iter_mut().filter_map(|slot| match &mut slot.state {
            State::Waiting { waiter } => waiter.take(),
            _ => None,
        });
        waiters.map(|(waker, _)| waker).collect()
    }

    /// Those whose deadline is over, to be woken, and how many places became free. Says by `swept`
    /// whether there is anything to come back for.
    pub(crate) fn sweep(&mut self, now: Instant) -> (Vec<Waker>, usize) {
        let (mut late, mut freed) = (Vec::new(), 0);
        self.swept = false;
        for place in 0..self.slots.len() {
            match &mut self.slots[place].state {
                State::Waiting { waiter } => {
                    self.swept = true;
                    if let Some((waker, _)) = waiter.take_if(|(_, deadline)| *deadline <= now) {
                        late.push(waker);
                    }
                }
                State::Left(until) if *until <= now => {
                    self.release(place);
                    freed += 1;
                }
                State::Left(_) => self.swept = true,
                State::Free | State::Answered(_) => {}
            }
        }
        (late, freed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LATER: Duration = Duration::from_secs(5);

    fn look(slots: &mut Slots, turn: Turn, deadline: Instant, seen: &mut Option<u64>) -> Look {
        slots.look(turn, &Context::from_waker(Waker::noop()), deadline, seen)
    }

    #[test]
    fn an_answer_reaches_its_turn_and_no_later_one_of_the_place() {
        let mut slots = Slots::default();
        let (first, deadline) = (slots.take(), Instant::now() + LATER);
        assert_eq!(slots.leave(first, None), Left::Free, "not sent, so free at once");
        let second = slots.take();
        assert_eq!((first.place, slots.slots.len()), (second.place, 1), "the place is used again");
        assert!(matches!(slots.answer(first, Ok(true)), (None, false)));
        assert!(slots.now(second).is_none());
        assert_eq!(
            slots.leave(first, None),
            Left::Before,
            "and is not given up by the one of before"
        );
        let mut seen = Some(0);
        assert!(matches!(look(&mut slots, second, deadline, &mut seen), Look::Wait));
        assert!(slots.answer(second, Ok(false)).0.is_some());
        // A foreign program that hears the topic can answer too: the first answer counts.
        assert!(slots.answer(second, Ok(true)).0.is_none());
        let seen = look(&mut slots, second, deadline, &mut seen);
        assert!(matches!(seen, Look::Answer(Ok(false))));
        assert_eq!(slots.free.len(), 1);
    }

    #[test]
    fn what_was_sent_and_left_is_counted_until_its_answer_or_its_time() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let (answered, silent) = (slots.take(), slots.take());
        assert_eq!(slots.leave(answered, Some(now + LATER)), Left::Counted);
        assert_eq!(slots.leave(silent, Some(now + LATER)), Left::Counted);
        assert!(slots.answer(answered, Ok(false)).1);
        assert_eq!(slots.sweep(now).1, 0);
        assert!(slots.swept);
        assert_eq!(slots.sweep(now + LATER).1, 1);
        assert!(!slots.swept);
        assert_eq!(slots.free.len(), 2);
    }

    #[test]
    fn those_who_wait_hear_of_news_once_and_of_their_deadline() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let (turn, mut seen) = (slots.take(), None);
        assert!(matches!(look(&mut slots, turn, now + LATER, &mut seen), Look::News));
        assert!(matches!(look(&mut slots, turn, now + LATER, &mut seen), Look::Wait));
        assert_eq!(slots.tell().len(), 1);
        assert!(matches!(look(&mut slots, turn, now + LATER, &mut seen), Look::News));
        assert!(matches!(look(&mut slots, turn, now + LATER, &mut seen), Look::Wait));
        assert!(slots.sweep(now).0.is_empty());
        assert_eq!(slots.sweep(now + LATER).0.len(), 1);
        assert!(matches!(look(&mut slots, turn, now, &mut seen), Look::Late));
    }

    #[test]
    fn a_token_names_its_turn() {
        let mut slots = Slots::default();
        for _ in 0..3 {
            let turn = slots.take();
            let token = format!("{:x}", turn.token());
            assert_eq!(Turn::of_token(&token), Some(turn));
        }
        for bad in ["", "+", "x", "11112222333344445"] {
            assert_eq!(Turn::of_token(bad), None, "{bad}");
        }
    }
}
