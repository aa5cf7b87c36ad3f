//! A message that ends its handler's process, each time.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_core::{Broker as _, Page, Setup, policy::Reason};
use longshore_runtime::Client;
use tokio::time::sleep;

use crate::child::{CRASH_LEASE, WORK, policy, start};
use crate::server::Server;
use crate::support::Bench;

/// Deliveries grow and failures do not, so it goes to the suspect lane, is found out there, and is
/// dead-lettered; nothing of it stays in the stream, and its neighbours are handled.
#[tokio::test]
async fn what_kills_its_process_on_every_attempt_is_isolated_and_not_stranded() {
    const MOST: usize = 6;
    let server = Server::start().await;
    let bench = Bench::new(&server.url()).await;
    bench.lease(CRASH_LEASE).await;
    for body in ["a", "b", "kills", "c", "d"] {
        bench.publish(body).await.unwrap();
    }
    let begun = Instant::now();
    let (mut crashes, mut lane) = (0, false);
    while bench.nats.stats(&bench.letters()).await.unwrap().ready == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "not found out");
        let mut child = start(WORK, &server.url());
        let mut child = child.spawn().unwrap();
        loop {
            let suspects = bench.nats.stats(&bench.suspects()).await.unwrap();
            lane |= suspects.ready + suspects.in_flight > 0;
            if let Some(status) = child.try_wait().unwrap() {
                let told = child.wait_with_output().await.unwrap().stderr;
                let told = String::from_utf8_lossy(&told);
                assert!(status.signal().is_some(), "it ended by itself, {status}: {told}");
                crashes += 1;
                assert!(crashes <= MOST, "it kills for the {crashes}th time");
                break;
            }
            if bench.nats.stats(&bench.letters()).await.unwrap().ready > 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not found out");
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(crashes >= 2, "dead after {crashes} crashes: nobody could know");
    assert!(lane, "it was never in the suspect lane");
    let page = Page { after: None, limit: 10 };
    let dead = bench.nats.browse(&bench.letters(), &page).await.unwrap();
    assert_eq!((dead.len(), &dead[0].body[..]), (1, &b"kills"[..]));
    let letter = dead[0].letter.as_ref().unwrap();
    assert_eq!((letter.reason, letter.attempts), (Reason::CrashSuspect, 0));
    assert!(letter.deliveries > 4, "{}", letter.deliveries);

    // What its crashes left to be handled is handled by the next process.
    let setup = Setup::default();
    let broker = longshore_nats::connect(&server.url(), setup.clone()).await.unwrap();
    let client = Client::new(Arc::new(broker), setup);
    let worker = client.worker("orders", "billing").lease(CRASH_LEASE).policy(policy());
    let running = worker.handle(|_: longshore_core::Received| async { Ok(()) });
    let running = running.start().await.unwrap();
    running.idle().await;
    for source in [bench.source(), bench.suspects()] {
        // What the last process held comes back with its lease.
        let begun = Instant::now();
        loop {
            let stats = bench.nats.stats(&source).await.unwrap();
            if (stats.ready, stats.in_flight, stats.waiting) == (0, 0, 0) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "stranded: {stats:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    running.stop().await.unwrap();
}
