//! TLS: trust, mutual TLS, and the handshake before the first word.

use std::time::{Duration, Instant};

use longshore_core::{Error, ErrorKind, Retryability, Setup};
use longshore_nats::connect;

use crate::certificates::Authority;
use crate::server::{Server, path};
use crate::support::{Bench, ack, is, next};

/// A server with a certificate of `authority`, and `more` in its TLS block.
async fn server(authority: &Authority, more: &str) -> Server {
    let (cert, key) = authority.sign("127.0.0.1");
    let config = format!(
        "tls {{ cert_file: \"@DIR@/server.pem\", key_file: \"@DIR@/server.key\", \
         ca_file: \"@DIR@/ca.pem\", {more} }}"
    );
    let files = [("server.pem", cert), ("server.key", key), ("ca.pem", authority.pem())];
    Server::with_files(&config, &files).await
}

/// A file beside the server's.
fn file(server: &Server, name: &str, text: &str) -> String {
    let file = server.file(name);
    std::fs::write(&file, text).unwrap();
    path(&file)
}

fn url(server: &Server, scheme: &str, options: &str) -> String {
    format!("{scheme}://127.0.0.1:{}?connect_timeout=8s&{options}", server.port)
}

async fn works(url: &str) {
    let bench = Bench::new(url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    let received = next(&*consumer).await;
    ack(&*consumer, received.token).await.unwrap();
}

/// Told as what it is, at once, and not tried again.
async fn refused(server: &Server, url: &str, failures: usize) -> Error {
    let begun = Instant::now();
    let error = is(connect(url, Setup::default()).await, ErrorKind::Unauthenticated);
    assert_eq!(error.retryability(), Retryability::Permanent);
    assert!(begun.elapsed() < Duration::from_secs(6), "tried for {:?}", begun.elapsed());
    server.logs("TLS handshake error", failures).await;
    error
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_by_no_other() {
    let (right, other) = (Authority::new(), Authority::new());
    let server = server(&right, "timeout: 5").await;
    let ca = file(&server, "right.pem", &right.pem());
    for scheme in ["tls", "nats"] {
        works(&url(&server, scheme, &format!("ca={ca}"))).await;
    }
    assert_eq!(server.logged("TLS handshake error"), 0);
    let ca = file(&server, "other.pem", &other.pem());
    let error = refused(&server, &url(&server, "tls", &format!("ca={ca}")), 1).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    // The roots of the system do not know it either.
    refused(&server, &url(&server, "tls", ""), 2).await;
    assert_eq!(server.logged("TLS handshake error"), 2, "one attempt each");
    // A plain URL does not get round it: the server asks for TLS.
    refused(&server, &url(&server, "nats", ""), 3).await;
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let authority = Authority::new();
    let (cert, key) = authority.sign("elsewhere.example");
    let config = "tls { cert_file: \"@DIR@/server.pem\", key_file: \"@DIR@/server.key\" }";
    let server = Server::with_files(config, &[("server.pem", cert), ("server.key", key)]).await;
    let ca = file(&server, "ca.pem", &authority.pem());
    refused(&server, &url(&server, "tls", &format!("ca={ca}")), 1).await;
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let (right, other) = (Authority::new(), Authority::new());
    let server = server(&right, "verify: true, timeout: 5").await;
    let ca = file(&server, "right.pem", &right.pem());
    let with = |name: &str, authority: &Authority| {
        let (cert, key) = authority.sign("client");
        let cert = file(&server, &format!("{name}.pem"), &cert);
        let key = file(&server, &format!("{name}.key"), &key);
        url(&server, "tls", &format!("ca={ca}&cert={cert}&key={key}"))
    };
    works(&with("good", &right)).await;
    refused(&server, &with("stranger", &other), 1).await;
    refused(&server, &url(&server, "tls", &format!("ca={ca}")), 2).await;
}

#[tokio::test]
async fn tls_first_meets_a_server_that_says_nothing_before() {
    let authority = Authority::new();
    let server = server(&authority, "handshake_first: true, timeout: 5").await;
    let ca = file(&server, "right.pem", &authority.pem());
    works(&url(&server, "tls", &format!("ca={ca}&tls_first=true"))).await;
    // Both wait for the other's first word, and the client's deadline ends it.
    let waits = url(&server, "tls", &format!("ca={ca}")).replace("=8s", "=2s");
    let error = connect(&waits, Setup::default()).await.unwrap_err();
    assert_eq!(error.retryability(), Retryability::Exhausted, "{error:?}");
}

#[tokio::test]
async fn encryption_that_was_asked_for_is_not_given_up() {
    let server = Server::start().await;
    let plain = url(&server, "tls", "").replace("=8s", "=2s");
    let error = connect(&plain, Setup::default()).await.unwrap_err();
    assert!([ErrorKind::Unavailable, ErrorKind::Unauthenticated].contains(&error.kind()));
    assert_eq!(server.logged("authentication"), 0, "no credentials were shown in the clear");
}

#[tokio::test]
async fn files_that_are_none_are_told_before_anything_is_sent() {
    let server = Server::start().await;
    let nothing = file(&server, "nothing.pem", "no certificate");
    for options in [
        "ca=/no/such/file".to_owned(),
        format!("ca={nothing}"),
        format!("cert={nothing}&key={nothing}"),
    ] {
        let error =
            is(connect(&url(&server, "tls", &options), Setup::default()).await, ErrorKind::Config);
        assert!(error.to_string().contains("cannot use"), "{error}");
    }
}
