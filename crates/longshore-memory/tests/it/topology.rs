//! Declarations, what a broker says of itself, and its names.

use longshore_core::{
    Broker, Drift, ErrorKind, Group, Mode, PublishDedup, Setup, Severity, Start, Topology,
};
use longshore_memory::{Memory, connect};

use crate::kit::*;

fn verify(group: Group) -> Topology {
    Topology { mode: Mode::Verify, ..Topology::group(group) }
}

#[tokio::test(start_paused = true)]
async fn a_new_group_starts_as_it_was_declared() {
    let memory = connect("memory://", Setup::default()).await.unwrap();
    memory.declare(&Topology::topic(topic())).await.unwrap();
    publish(&memory, &["a", "b"]).await;
    memory.declare(&Topology::group(group("fresh"))).await.unwrap();
    let earliest = Group { start: Start::Earliest, ..group("all") };
    memory.declare(&Topology::group(earliest)).await.unwrap();
    publish(&memory, &["c"]).await;
    let fresh = open(&memory, main_of("fresh"), 10).await;
    let all = open(&memory, main_of("all"), 10).await;
    assert_eq!(ids(&receive(&*fresh, 10).await), ["c"]);
    let got = receive(&*all, 10).await;
    assert_eq!(ids(&got), ["a", "b", "c"]);
    ack(&*all, &got[0]).await;
    assert_eq!(memory.stored(&topic()).unwrap(), 2, "its only group has settled it");
}

#[tokio::test(start_paused = true)]
async fn a_declaration_is_idempotent_and_drift_is_typed() {
    let memory = broker("memory://").await;
    publish(&memory, &["a"]).await;
    let again = Group { start: Start::Earliest, longest_delay: seconds(9), ..group("billing") };
    memory.declare(&Topology::group(again)).await.unwrap();
    assert_eq!(counts(&memory, main_of("billing")).await, (1, 0, 0));

    memory.declare(&Topology::group(group("audit"))).await.unwrap();
    let differing = Topology {
        groups: vec![
            Group { dead_letters: None, ..group("billing") },
            Group { dead_letters: Some(seconds(1)), ..group("audit") },
            group("new"),
        ],
        ..Topology::default()
    };
    let error = memory.declare(&differing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.native::<Drift>().unwrap().entries.len(), 2, "{error:?}");
    let missing = memory.declare(&verify(group("new"))).await;
    assert_kind(missing, ErrorKind::NotFound);
    let zero = Group { lease: seconds(0), ..group("billing") };
    assert_kind(memory.declare(&Topology::group(zero)).await, ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn the_last_declared_lease_holds() {
    let memory = broker("memory://").await;
    let longer = Group { lease: LEASE * 2, ..group("billing") };
    memory.declare(&verify(longer.clone())).await.unwrap();
    let consumer = open(&memory, main_of("billing"), 1).await;
    publish(&memory, &["a"]).await;
    let start = tokio::time::Instant::now();
    one(&*consumer).await;
    one(&*consumer).await;
    assert_eq!(start.elapsed().as_secs(), 10, "verifying changes nothing");
    memory.declare(&Topology::group(longer)).await.unwrap();
    one(&*consumer).await;
    one(&*consumer).await;
    assert_eq!(start.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_assumed_is_not_made() {
    let memory = connect("memory://", Setup::default()).await.unwrap();
    let assumed = Topology { mode: Mode::Assume, ..Topology::group(group("billing")) };
    memory.declare(&assumed).await.unwrap();
    assert_kind(memory.publisher(&topic()).await, ErrorKind::NotFound);
    assert_kind(memory.stats(&main_of("billing")).await, ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn it_says_what_it_is() {
    let memory = broker("memory://?dedup=3s").await;
    let info = memory.info();
    assert_eq!((info.name, info.schemes, info.steps.len()), ("memory", &["memory"][..], 0));
    assert_eq!(info.capabilities.publish_dedup, PublishDedup::Window(seconds(3)));
    let findings = memory.audit().await.unwrap();
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Info));
    assert!(memory.native().downcast_ref::<Memory>().is_some());
    let off = broker("memory://?dedup=0s").await;
    assert_eq!(off.info().capabilities.publish_dedup, PublishDedup::None);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_shared_until_its_last_client_is_gone() {
    let first = broker("memory://shared-until?capacity=5").await;
    let second = connect("memory://shared-until", Setup::default()).await.unwrap();
    let own = connect("memory://", Setup::default()).await.unwrap();
    publish(&first, &["a"]).await;
    let conflict = connect("memory://shared-until?capacity=6", Setup::default()).await;
    assert_kind(conflict, ErrorKind::Config);
    assert_kind(own.stored(&topic()), ErrorKind::NotFound);
    first.close().await.unwrap();
    assert_eq!(second.stored(&topic()).unwrap(), 1, "others go on");
    let reader = open(&second, main_of("billing"), 1).await;
    drop(second);
    assert_eq!(id(&one(&*reader).await), "a", "a consumer keeps its connection");
    drop(reader);
    let later = connect("memory://shared-until?capacity=7", Setup::default()).await.unwrap();
    assert_kind(later.stored(&topic()), ErrorKind::NotFound);
}
