//! Users, passwords and rights.

use std::time::{Duration, Instant};

use longshore_core::{
    Broker as _, ErrorKind, Outcome, Record, Retryability, Settlement, Setup, Severity,
};
use longshore_redis::connect;
use longshore_testbed::Options;

use crate::support::{Bench, ack, ended, failed, is, next, server, server_with, settle};

/// What `docs/backends/redis.md` says a user needs; the topic is `orders`.
const RIGHTS: &str = "resetkeys ~orders ~{orders}.* resetchannels -@all +hello +auth +ping +info \
+type +client|id +client|unblock +xadd +xreadgroup +xack +xclaim +xpending +xinfo +xgroup +xrange \
+xrevrange +xlen +xdel +hset +hget +hmget +hdel +zadd +zrangebyscore +zrem +zscore +time +evalsha \
+script|load +wait";
const DEFAULT: &str = "user default off ~* +@all";

fn url(server: &longshore_testbed::Broker, user: &str) -> String {
    server.url().replacen("redis://", &format!("redis://{user}@"), 1)
}

#[tokio::test]
async fn the_documented_rights_are_enough() {
    let users = format!("{DEFAULT}\nuser app on >secret {RIGHTS}");
    let server = server_with(Options::default().config(users)).await;
    let bench = Bench::new(&url(&server, "app:secret")).await;
    let consumer = bench.consumer(bench.source()).await;
    let suspects = bench.consumer(bench.suspects()).await;
    for (body, attempts) in [("acked", 1), ("retried", 2)] {
        bench.publish(body).await.unwrap();
        let mut received = next(&*consumer).await;
        for _ in 1..attempts {
            let after = Duration::from_millis(50);
            let record = failed(&received);
            let retry = Settlement::Retry { token: received.token, after, record };
            settle(&*consumer, retry).await.unwrap();
            received = next(&*consumer).await;
        }
        let mut out = Vec::new();
        consumer.extend(&[received.token], Duration::from_secs(1), &mut out).await;
        out.remove(0).unwrap();
        ack(&*consumer, received.token).await.unwrap();
    }
    bench.publish("suspected").await.unwrap();
    let received = next(&*consumer).await;
    let order = Settlement::Suspect { token: received.token, record: failed(&received) };
    settle(&*consumer, order).await.unwrap();
    let received = next(&*suspects).await;
    let letter = Settlement::DeadLetter { token: received.token, letter: bench.letter(&received) };
    settle(&*suspects, letter).await.unwrap();
    let page = longshore_core::Page { after: None, limit: 9 };
    assert_eq!(bench.redis.browse(&bench.letters(), &page).await.unwrap().len(), 1);
    assert_eq!(bench.redis.browse(&bench.source(), &page).await.unwrap().len(), 0);
    let queue = bench.consumer(bench.letters()).await;
    let record = Box::new(Record { redrives: 1, ..Record::default() });
    let dead = next(&*queue).await;
    settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
    ack(&*consumer, next(&*consumer).await.token).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.source()).await.unwrap().ready, 0);
    // What it may not ask is said, and is no error.
    let findings = bench.redis.audit().await.unwrap();
    let of_default = findings.iter().find(|finding| finding.setting == "user default").unwrap();
    assert_eq!(of_default.severity, Severity::Info);
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once() {
    let users = format!("{DEFAULT}\nuser app on >secret {RIGHTS}");
    let server = server_with(Options::default().config(users)).await;
    for user in ["app:wrong", "nobody:secret"] {
        let began = Instant::now();
        let error =
            is(connect(&url(&server, user), Setup::default()).await, ErrorKind::Unauthenticated);
        assert_eq!(error.retryability(), Retryability::Permanent);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let shown = format!("{error:?}");
        assert!(!shown.contains("wrong") && !shown.contains("secret"), "{shown}");
    }
    let error = is(connect(server.url(), Setup::default()).await, ErrorKind::Unauthenticated);
    assert_eq!(error.retryability(), Retryability::Permanent);
}

#[tokio::test]
async fn a_right_that_is_missing_is_forbidden() {
    let users = format!("{DEFAULT}\nuser app on >secret {RIGHTS}");
    let server = server_with(Options::default().config(users)).await;
    let bench = Bench::new(&url(&server, "app:secret")).await;
    let other = "other".try_into().unwrap();
    is(bench.redis.publisher(&other).await, ErrorKind::Forbidden);
    let consumer = bench.consumer(bench.source()).await;
    let node = &server.nodes()[0];
    node.control(&["acl", "setuser", "app", "-xadd"]).await.unwrap();
    let refused = is(bench.publish("m").await, ErrorKind::Forbidden);
    assert_eq!(refused.outcome(), Some(Outcome::Refused));
    // A consumer that may not read any more ends, and does not try for ever.
    node.control(&["acl", "setuser", "app", "-xreadgroup"]).await.unwrap();
    let ends = tokio::time::timeout(Duration::from_secs(20), ended(&*consumer));
    is(ends.await.unwrap(), ErrorKind::Forbidden);
}

/// A server replays its append-only file as the default user: without rights, what scripts wrote is
/// dropped at a restart.
#[tokio::test]
async fn a_default_user_without_rights_is_a_danger_that_the_audit_shows() {
    for (default, danger) in
        [(DEFAULT, false), ("user default off", true), ("user default off ~x +@all", true)]
    {
        let users = format!("{default}\nuser app on >secret ~* &* +@all");
        let server = server_with(Options::default().config(users)).await;
        let bench = Bench::new(&url(&server, "app:secret")).await;
        let findings = bench.redis.audit().await.unwrap();
        let found = findings.iter().find(|finding| finding.setting == "user default");
        assert_eq!(found.map(|it| it.severity), danger.then_some(Severity::Danger), "{default}");
    }
    let server = server().await;
    let findings = Bench::new(server.url()).await.redis.audit().await.unwrap();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Info), "{findings:?}");
}
