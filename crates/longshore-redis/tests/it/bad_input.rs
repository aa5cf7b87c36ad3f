//! Servers and keys that are not what they should be.

use std::time::Duration;

use longshore_core::{
    Broker as _, ConsumerSpec, ErrorKind, Group, InstanceId, Outcome, Retryability, Setup,
    Severity, Topology,
};
use longshore_redis::connect;
use longshore_testbed::Options;

use crate::support::{Bench, command, group, is, server, server_with};

#[tokio::test]
async fn a_server_that_may_evict_a_topic_is_refused_unless_allowed() {
    let options = Options::default().config("maxmemory 100mb\nmaxmemory-policy allkeys-lru");
    let server = server_with(options).await;
    is(connect(server.url(), Setup::default()).await, ErrorKind::Config);
    let allowed = format!("{}?allow_eviction=true", server.url());
    let findings = Bench::new(&allowed).await.redis.audit().await.unwrap();
    assert!(findings.iter().any(|it| it.severity == Severity::Danger), "{findings:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable_after_the_time_that_was_given() {
    let error = connect("redis://127.0.0.1:1?connect_timeout=300ms", Setup::default()).await;
    let error = is(error, ErrorKind::Unavailable);
    assert_eq!(error.retryability(), Retryability::Exhausted);
}

#[tokio::test]
async fn a_key_of_another_type_is_told_and_left_alone() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    bench.ask(&command(&["SET", "taken", "x"])).await;
    let taken = Topology::group(group("taken"));
    is(bench.redis.declare(&taken).await, ErrorKind::Config);
    is(bench.redis.publisher(&"taken".try_into().unwrap()).await, ErrorKind::Config);
    // Under a publisher and a consumer that are open.
    bench.ask(&command(&["DEL", "orders"])).await;
    bench.ask(&command(&["SET", "orders", "x"])).await;
    let publisher = bench.redis.publisher(&bench.topic).await;
    is(publisher, ErrorKind::Config);
    assert_eq!(
        bench.ask(&command(&["GET", "orders"])).await,
        redis::Value::BulkString(b"x".into())
    );
}

#[tokio::test]
async fn a_topic_that_is_deleted_under_a_publisher_is_not_found() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let publisher = bench.redis.publisher(&bench.topic).await.unwrap();
    bench.ask(&command(&["DEL", "orders"])).await;
    let lost = crate::support::send(&*publisher, "m".into()).await;
    assert_eq!(is(lost, ErrorKind::NotFound).outcome(), Some(Outcome::Refused));
    assert_eq!(bench.number(&["EXISTS", "orders"]).await, 0);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    is(bench.redis.publisher(&"other".try_into().unwrap()).await, ErrorKind::NotFound);
    for (topic, name) in [("other", "billing"), ("orders", "other")] {
        let source = longshore_core::Source::Group {
            topic: topic.try_into().unwrap(),
            group: name.try_into().unwrap(),
        };
        let instance = InstanceId::generate();
        let lease = Duration::from_secs(5);
        let spec = ConsumerSpec { source: source.clone(), prefetch: 1, lease, instance };
        is(bench.redis.consumer(&spec).await, ErrorKind::NotFound);
        is(bench.redis.stats(&source).await, ErrorKind::NotFound);
        let page = longshore_core::Page { after: None, limit: 1 };
        is(bench.redis.browse(&source, &page).await, ErrorKind::NotFound);
    }
    let verify = Topology {
        mode: longshore_core::Mode::Verify,
        groups: vec![Group { name: "other".try_into().unwrap(), ..group("orders") }],
        topics: Vec::new(),
    };
    is(bench.redis.declare(&verify).await, ErrorKind::NotFound);
}

/// An operator's `wait` that no replica can meet is told, and the message is stored.
#[tokio::test]
async fn replicas_that_are_not_there_are_not_waited_for_in_silence() {
    let server = server().await;
    let bench = Bench::new(&format!("{}?wait=1&publish_timeout=1s", server.url())).await;
    let error = is(bench.publish("m").await, ErrorKind::Timeout);
    assert_eq!(error.outcome(), Some(Outcome::Unknown));
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 1);
}
