//! Permissions that lack one subject: told as what they are, and nothing is lost.

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Outcome, Settlement, Setup, Topology};
use longshore_nats::connect;

use crate::server::Server;
use crate::support::{Bench, ack, failed, group, is, next, settle};

/// Users that may do everything but publish to one subject.
async fn server(denied: &[(&str, &str)]) -> Server {
    let users = denied.iter().map(|(user, subject)| {
        format!(
            "{{ user: {user}, password: pw, permissions: {{ publish: {{ deny: [\"{subject}\"] }} }} }}"
        )
    });
    let users = users.collect::<Vec<_>>().join("\n");
    let all = "{ user: good, password: pw }";
    Server::with(&format!("authorization {{ users: [ {all}\n{users} ] }}")).await
}

fn url(server: &Server, user: &str) -> String {
    format!("nats://{user}:pw@127.0.0.1:{}", server.port)
}

#[tokio::test]
async fn a_publish_is_refused_and_the_rest_goes_on() {
    let server = server(&[("narrow", "orders")]).await;
    let narrow = Bench::new(&url(&server, "narrow")).await;
    let error = is(narrow.publish("m").await, ErrorKind::Forbidden);
    assert_eq!(error.outcome(), Some(Outcome::Refused));
    let good = Bench::new(&url(&server, "good")).await;
    good.publish("m").await.unwrap();
    let consumer = narrow.consumer(narrow.source()).await;
    let received = next(&*consumer).await;
    ack(&*consumer, received.token).await.unwrap();
}

#[tokio::test]
async fn a_settlement_that_is_refused_leaves_the_message_to_who_may() {
    let server = server(&[("mute", "$JS.ACK.>")]).await;
    let mute = Bench::new(&url(&server, "mute")).await;
    mute.publish("m").await.unwrap();
    let consumer = mute.consumer(mute.source()).await;
    let received = next(&*consumer).await;
    is(ack(&*consumer, received.token).await, ErrorKind::Forbidden);
    drop(consumer);
    let good = Bench::new(&url(&server, "good")).await;
    let consumer = good.consumer(good.source()).await;
    let again = next(&*consumer).await;
    assert_eq!((again.id, again.deliveries), (received.id, 2));
    ack(&*consumer, again.token).await.unwrap();
}

#[tokio::test]
async fn a_record_or_a_copy_that_is_refused_leaves_the_original_where_it_is() {
    let denied = [
        ("no_letters", "orders.billing.dlq"),
        ("no_records", "longshore.ledger.>"),
        ("no_suspects", "orders.billing.suspect"),
    ];
    let server = server(&denied).await;
    for (user, subject) in denied {
        let narrow = Bench::new(&url(&server, user)).await;
        let consumer = narrow.consumer(narrow.source()).await;
        narrow.publish(user).await.unwrap();
        let received = next(&*consumer).await;
        let (token, record) = (received.token, failed(&received));
        let settlement = match user {
            "no_letters" => Settlement::DeadLetter { token, letter: narrow.letter(&received) },
            "no_records" => Settlement::Retry { token, after: Duration::from_secs(1), record },
            _ => Settlement::Suspect { token, record },
        };
        let error = is(settle(&*consumer, settlement.clone()).await, ErrorKind::Forbidden);
        assert!(format!("{error:?}").contains(&subject.replace(".>", "")), "{error:?}");
        // It is still held: the order can be given again, and here another one is.
        is(settle(&*consumer, settlement).await, ErrorKind::Forbidden);
        ack(&*consumer, token).await.unwrap();
        let stats = narrow.nats.stats(&narrow.source()).await.unwrap();
        assert_eq!((stats.ready, stats.in_flight, stats.waiting), (0, 0, 0), "{user}");
        assert_eq!(narrow.nats.stats(&narrow.letters()).await.unwrap().ready, 0);
    }
}

#[tokio::test]
async fn an_original_whose_copy_is_refused_comes_again_to_another() {
    let server = server(&[("no_letters", "orders.billing.dlq")]).await;
    let narrow = Bench::new(&url(&server, "no_letters")).await;
    let consumer = narrow.consumer(narrow.source()).await;
    narrow.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    let (token, letter) = (received.token, narrow.letter(&received));
    is(settle(&*consumer, Settlement::DeadLetter { token, letter }).await, ErrorKind::Forbidden);
    consumer.close().await.unwrap();
    let good = Bench::new(&url(&server, "good")).await;
    let consumer = good.consumer(good.source()).await;
    let again = next(&*consumer).await;
    assert_eq!(again.id, received.id);
    let (token, letter) = (again.token, good.letter(&again));
    settle(&*consumer, Settlement::DeadLetter { token, letter }).await.unwrap();
    assert_eq!(good.nats.stats(&good.letters()).await.unwrap().ready, 1);
}

#[tokio::test]
async fn a_pull_that_is_refused_ends_the_consumer() {
    let server = server(&[("reader", "$JS.API.CONSUMER.MSG.NEXT.>")]).await;
    let reader = Bench::new(&url(&server, "reader")).await;
    let consumer = reader.consumer(reader.source()).await;
    is(consumer.receive(&mut Vec::new(), 1).await, ErrorKind::Forbidden);
}

#[tokio::test]
async fn a_declaration_that_is_refused_is_forbidden_and_one_that_verifies_is_not() {
    let server = server(&[("user", "$JS.API.STREAM.CREATE.>")]).await;
    let user = connect(&url(&server, "user"), Setup::default()).await.unwrap();
    is(user.declare(&Topology::group(group("orders"))).await, ErrorKind::Forbidden);
    let good = Bench::new(&url(&server, "good")).await;
    user.declare(&Topology::group(group("orders"))).await.unwrap();
    good.publish("m").await.unwrap();
}
