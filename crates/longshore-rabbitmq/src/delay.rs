//! Where a copy goes that must wait: levels of 100 ms times a power of two, shared by all groups of
//! the virtual host. The routing key says of each level whether the copy waits there.

use std::time::Duration;

use crate::names::{delay_level, queue_token};

/// Levels; together they last 9.7 days.
pub(crate) const LEVELS: usize = 23;
/// How long the lowest level lasts.
pub(crate) const BASE: Duration = Duration::from_millis(100);
/// The longest delay: every level.
pub(crate) const LONGEST: Duration = Duration::from_millis(100 * LONGEST_UNITS as u64);
/// By what share of itself a delay may be longer than asked for. Four bits of a delay are kept, and
/// the fifth is rounded up: one in eight at most.
pub(crate) const RELATIVE_ERROR: f64 = 0.125;

const LONGEST_UNITS: u32 = (1 << LEVELS) - 1;
/// Each level that a copy waits in costs the broker a hop; this many bits leave 2.4 of them.
const KEPT_BITS: u32 = 4;

/// Where to publish a copy that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Of the highest level that it waits in.
    pub(crate) exchange: String,
    /// One bit for each level, the highest first, then the queue's token.
    pub(crate) key: String,
    /// How long it will wait: never shorter than asked for, unless that was beyond [`LONGEST`].
    pub(crate) rounded: Duration,
}

/// How long level `k` lasts.
pub(crate) fn lasts(k: usize) -> Duration {
    BASE * (1 << k)
}

/// The route of a copy that comes out at `queue` after `delay`, which is at least 100 ms on the way.
/// A delay beyond [`LONGEST`] is cut to it: the rest is the caller's, who sees it in `rounded`.
pub(crate) fn route(delay: Duration, queue: &str) -> Route {
    let units = units(delay);
    let top = units.ilog2() as usize;
    let mut key = String::with_capacity(2 * LEVELS + queue.len());
    for level in (0..LEVELS).rev() {
        key.push(if units >> level & 1 == 1 { '1' } else { '0' });
        key.push('.');
    }
    key.push_str(&queue_token(queue));
    Route { exchange: delay_level(top), key, rounded: BASE * units }
}

/// In units of the lowest level, rounded up.
fn units(delay: Duration) -> u32 {
    let exact = delay.as_nanos().div_ceil(BASE.as_nanos()).clamp(1, u128::from(LONGEST_UNITS));
    // The clamp keeps it inside.
    let exact = exact as u32;
    let dropped = (exact.ilog2() + 1).saturating_sub(KEPT_BITS);
    let rounded = exact.div_ceil(1 << dropped) << dropped;
    // Beyond the last round number there is only the sum of all levels.
    rounded.min(LONGEST_UNITS)
}

/// Whether a routing key is one of ours and ends at the queue of `token`.
pub(crate) fn ends_at(key: &str, token: &str) -> bool {
    let Some(bits) = key.strip_suffix(token) else { return false };
    bits.len() == 2 * LEVELS
        && bits.as_bytes().chunks(2).all(|bit| matches!(bit, [b'0' | b'1', b'.']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_route_starts_at_its_highest_level() {
        let route = route(Duration::from_secs(1), "shop.orders.billing");
        // Ten units: eight and two.
        assert_eq!(route.exchange, "longshore.delay.3");
        assert_eq!(route.key, format!("{}1.0.1.0.shop=orders=billing", "0.".repeat(19)));
        assert_eq!(route.rounded, Duration::from_secs(1));
        assert!(ends_at(&route.key, "shop=orders=billing"));
        for other in ["billing", "orders=billing", "", "x"] {
            assert!(!ends_at(&route.key, other), "{other}");
        }
        assert!(!ends_at("shop=orders=billing", "shop=orders=billing"));
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(route(Duration::ZERO, "q").rounded, BASE);
        assert_eq!(route(LONGEST, "q").rounded, LONGEST);
        assert_eq!(route(LONGEST - BASE, "q").rounded, LONGEST);
        assert_eq!(route(Duration::MAX, "q").rounded, LONGEST);
        assert_eq!(LONGEST, (0..LEVELS).map(lasts).sum::<Duration>());
        assert!(LONGEST > Duration::from_secs(97 * 8_640));
    }

    proptest! {
        #[test]
        fn no_delay_is_early_and_none_an_eighth_late(millis in 1u64..838_860_700, nanos in 0u32..1_000_000) {
            let delay = (Duration::from_millis(millis) + Duration::new(0, nanos)).min(LONGEST);
            let Route { exchange, key, rounded } = route(delay, "a.b");
            prop_assert!(rounded >= delay);
            let units = delay.as_nanos().div_ceil(BASE.as_nanos()) as f64;
            let least = BASE.as_secs_f64() * units;
            prop_assert!(rounded.as_secs_f64() <= least * (1.0 + RELATIVE_ERROR) + 1e-6);

            let (bits, token) = key.rsplit_once('.').unwrap();
            prop_assert_eq!(token, "a=b");
            let bits: Vec<_> = bits.split('.').collect();
            prop_assert_eq!(bits.len(), LEVELS);
            let waits: Vec<_> = (0..LEVELS).filter(|k| bits[LEVELS - 1 - k] == "1").collect();
            prop_assert_eq!(waits.iter().map(|k| lasts(*k)).sum::<Duration>(), rounded);
            prop_assert_eq!(exchange, delay_level(*waits.last().unwrap()));
            prop_assert!(rounded == LONGEST || waits.len() <= KEPT_BITS as usize);
        }
    }
}
