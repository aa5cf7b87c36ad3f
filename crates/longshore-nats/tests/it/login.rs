//! Every way to log in, right and wrong, against a server that insists on it.

use std::time::Duration;

use longshore_core::{Error, ErrorKind, Retryability, Setup};
use longshore_nats::connect;
use nkeys::KeyPair;
use tokio::time::sleep;

use crate::jwt::Account;
use crate::server::{Server, path};
use crate::support::{Bench, ack, is, next};

/// What the server writes for each refusal.
const REFUSED: &str = "authentication error";

/// Publishes and receives one message.
async fn works(url: &str) {
    let bench = Bench::new(url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    ack(&*consumer, received.token).await.unwrap();
}

/// Refused as what it is, after one attempt, and without `secret` in any text.
async fn refused(server: &Server, url: &str, secret: &str) -> Error {
    let before = server.logged(REFUSED);
    let error = is(connect(url, Setup::default()).await, ErrorKind::Unauthenticated);
    assert_eq!(error.retryability(), Retryability::Permanent);
    silent(&error, secret);
    server.logs(REFUSED, before + 1).await;
    // A storm would have begun by now: the first back-off is shorter.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(server.logged(REFUSED), before + 1, "one attempt, and no other");
    error
}

/// Neither the error nor any of its causes shows `secret`.
fn silent(error: &Error, secret: &str) {
    let mut text = format!("{error:?} {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(&format!(" {next:?} {next}"));
        cause = next.source();
    }
    assert!(!text.contains(secret), "{text}");
}

#[tokio::test]
async fn user_and_password() {
    let server =
        Server::with("authorization { users: [ { user: good, password: hunter2 } ] }").await;
    works(&format!("nats://good:hunter2@127.0.0.1:{}", server.port)).await;
    let wrong = format!("nats://good:hunter3@127.0.0.1:{}", server.port);
    refused(&server, &wrong, "hunter3").await;
    refused(&server, &server.url(), "hunter").await;
}

#[tokio::test]
async fn token() {
    let server = Server::with("authorization { token: hunter2 }").await;
    works(&format!("{}?token=hunter2", server.url())).await;
    refused(&server, &format!("{}?token=hunter3", server.url()), "hunter3").await;
}

#[tokio::test]
async fn nkey() {
    let (good, other) = (KeyPair::new_user(), KeyPair::new_user());
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", good.public_key());
    let server = Server::with(&config).await;
    works(&format!("{}?nkey={}", server.url(), good.seed().unwrap())).await;
    let seed = other.seed().unwrap();
    refused(&server, &format!("{}?nkey={seed}", server.url()), &seed).await;
    // What is no seed at all never reaches the server's judgement.
    let before = server.logged(REFUSED);
    let broken = format!("{}?nkey=SUhunter3", server.url());
    let error = is(connect(&broken, Setup::default()).await, ErrorKind::Unauthenticated);
    silent(&error, "hunter3");
    assert_eq!(server.logged(REFUSED), before);
}

#[tokio::test]
async fn credentials_file() {
    let (account, stranger) = (Account::new(), Account::new());
    let server = Server::with(&account.config).await;
    let write = |name: &str, text: String| {
        let file = server.file(name);
        std::fs::write(&file, text).unwrap();
        format!("{}?creds={}", server.url(), path(&file))
    };
    works(&write("good.creds", account.user())).await;
    // Signed by an account that the server does not know; and a seed that is not the JWT's own.
    for (name, text) in
        [("stranger.creds", stranger.user()), ("seed.creds", account.user_with_another_seed())]
    {
        let seed = text.lines().find(|line| line.starts_with("SU")).unwrap().to_owned();
        refused(&server, &write(name, text), &seed).await;
    }
    // A file that is none is told before anything is sent.
    let text = account.user();
    let seed = text.lines().find(|line| line.starts_with("SU")).unwrap().to_owned();
    let text = text.replace("USER NKEY SEED", "SOMETHING ELSE").replace(&seed, "SUhunter3");
    for url in [write("broken.creds", text), format!("{}?creds=/no/such/file", server.url())] {
        let error = is(connect(&url, Setup::default()).await, ErrorKind::Config);
        assert!(error.to_string().contains("creds"), "{error}");
        silent(&error, "hunter3");
    }
}

#[tokio::test]
async fn credentials_that_are_refused_later_are_not_tried_again_and_again() {
    let users = "authorization { users: [ { user: good, password: hunter2 } ] }";
    let mut server = Server::with(users).await;
    let bench = Bench::new(&format!("nats://good:hunter2@127.0.0.1:{}", server.port)).await;
    let consumer = bench.consumer(bench.source()).await;
    server.kill().await;
    server.write("jetstream { store_dir: \"@DIR@\" }\nauthorization { user: a, password: b }");
    server.run().await;
    let ended = tokio::time::timeout(Duration::from_secs(15), crate::support::ended(&*consumer));
    let error = is(ended.await.unwrap(), ErrorKind::Unauthenticated);
    silent(&error, "hunter2");
    is(bench.publish("m").await, ErrorKind::Unauthenticated);
    // The client may have begun its next wait before it was told; there is none behind that one.
    sleep(Duration::from_secs(1)).await;
    let asked = server.logged(REFUSED);
    assert!((1..=2).contains(&asked), "{asked} attempts");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(server.logged(REFUSED), asked);
}
