//! Free ports on loopback.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below 32768, where Linux starts to hand out ports to outgoing connections: one of those could
/// take the port of a broker that is down for its restart.
const RANGE: Range<u16> = 20_000..32_000;

/// `count` ports that nobody listens at and that are not in `taken`.
///
/// The search starts anywhere, so that runs in other checkouts, which share no list with this one,
/// rarely meet. Where they do, one server cannot bind, and its start is tried again elsewhere.
pub(crate) fn free(count: usize, taken: &BTreeSet<u16>) -> io::Result<Vec<u16>> {
    let start = fastrand::u16(RANGE);
    let candidates = (start..RANGE.end).chain(RANGE.start..start);
    // Held until all are found, so that none is found twice.
    let held: Vec<_> = candidates
        .filter(|port| !taken.contains(port))
        .filter_map(|port| Some((port, bind(port).ok()?)))
        .take(count)
        .collect();
    if held.len() < count {
        return Err(io::Error::other(format!("fewer than {count} free ports in {RANGE:?}")));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// Whether nobody listens at `port`.
pub(crate) fn is_free(port: u16) -> bool {
    bind(port).is_ok()
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_below_the_ephemeral_ones_distinct_and_free() {
        let ports = free(50, &BTreeSet::new()).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 50);
        assert!(ports.iter().all(|port| *port < 32_768), "{ports:?}");
    }

    #[test]
    fn what_is_taken_or_listened_at_is_left_out() {
        let taken: BTreeSet<_> = RANGE.skip(3).collect();
        let mut left = free(2, &taken).unwrap();
        left.sort_unstable();
        let busy = bind(left[0]).unwrap();
        assert!(!free(2, &taken).unwrap_or_default().contains(&left[0]));
        drop(busy);
        assert!(free(4, &taken).is_err());
    }
}
