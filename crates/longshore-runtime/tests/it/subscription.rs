use futures::StreamExt;
use longshore_core::{ErrorKind, Reason};
use longshore_runtime::ClientOptions;

use super::{broker_as, client, ms, setup, soon};

#[tokio::test(start_paused = true)]
async fn a_dropped_delivery_comes_again() {
    let client = client().await;
    let mut subscription = client.subscribe("t", "g").await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    drop(delivery);
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    assert_eq!(delivery.attempt(), 1);
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_and_counts() {
    let client = client().await;
    let mut subscription = client.subscribe("t", "g").await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    delivery.retry(ms(700)).await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), ms(700));
    assert_eq!((delivery.attempt(), delivery.deliveries, delivery.unexplained()), (2, 2, 0));
    delivery.dead_letter(Reason::Rejected).await.unwrap();
    let letters = client.dead_letters("t", "g").unwrap().browse(10).await.unwrap();
    let letter = letters[0].letter.as_ref().unwrap();
    assert_eq!((letter.reason, letter.attempts, letter.delayed_retries), (Reason::Rejected, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn leases_are_kept_for_as_long_as_the_program_holds_them() {
    let client = client().await;
    let mut one = client.subscribe("t", "g").lease(ms(3_000)).await.unwrap();
    let mut two = client.subscribe("t", "g").lease(ms(3_000)).await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    let delivery = tokio::select! {
        delivery = one.next() => delivery,
        delivery = two.next() => delivery,
    };
    let delivery = delivery.unwrap().unwrap();
    let other = async {
        tokio::select! { _ = one.next() => {}, _ = two.next() => {} }
    };
    assert!(tokio::time::timeout(ms(60_000), other).await.is_err(), "delivered twice");
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_told_and_hands_the_delivery_back() {
    let setup = setup();
    let instance = setup.instance.clone();
    let (client, memory) = broker_as(setup, "memory://", ClientOptions::default()).await;
    let mut subscription = client.subscribe("t", "g").lease(ms(1_000)).await.unwrap();
    client.sender("t").await.unwrap().send("a").await.unwrap();
    let delivery = soon(subscription.next()).await.unwrap().unwrap();
    memory.crash(&instance);
    tokio::time::sleep(ms(5_000)).await;
    let unsettled = delivery.ack().await.unwrap_err();
    assert_eq!(unsettled.error.kind(), ErrorKind::LeaseLost);
    assert_eq!(unsettled.delivery.body, "a");
}

#[tokio::test(start_paused = true)]
async fn closing_gives_back_what_was_buffered() {
    let client = client().await;
    let mut one = client.subscribe("t", "g").await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for n in 0..5 {
        sender.send(n.to_string()).await.unwrap();
    }
    soon(one.next()).await.unwrap().unwrap().ack().await.unwrap();
    one.close().await.unwrap();
    let two = client.subscribe("t", "g").await.unwrap();
    let bodies: Vec<_> = soon(
        two.take(4)
            .then(|delivery| async {
                let delivery = delivery.unwrap();
                let body = delivery.body.clone();
                delivery.ack().await.unwrap();
                body
            })
            .collect(),
    )
    .await;
    assert_eq!(bodies, ["1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_gives_back_too_and_its_deliveries_can_still_be_settled() {
    let client = client().await;
    let mut one = client.subscribe("t", "g").await.unwrap();
    let sender = client.sender("t").await.unwrap();
    for n in 0..3 {
        sender.send(n.to_string()).await.unwrap();
    }
    let held = soon(one.next()).await.unwrap().unwrap();
    drop(one);
    let mut two = client.subscribe("t", "g").await.unwrap();
    for n in 1..3 {
        let delivery = soon(two.next()).await.unwrap().unwrap();
        assert_eq!(delivery.body, n.to_string());
        delivery.ack().await.unwrap();
    }
    held.ack().await.unwrap();
    assert!(tokio::time::timeout(ms(120_000), two.next()).await.is_err(), "acked for good");
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_refused_before_anything_is_declared() {
    let client = client().await;
    for refused in [
        client.subscribe("a..b", "g").await,
        client.subscribe("t", "g.h").await,
        client.subscribe("t", "g").prefetch(0).await,
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    }
    assert_eq!(client.sender("t").await.unwrap_err().kind(), ErrorKind::NotFound);
}
