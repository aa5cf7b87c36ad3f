//! TLS: trust, and mutual TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use longshore_core::{ErrorKind, Retryability, Setup};
use longshore_redis::connect;
use longshore_testbed::{Broker, Options};

use crate::certificates::Authority;
use crate::support::{Bench, ack, is, next, server_with};

/// A server with a certificate of `authority` for `name`.
async fn server(authority: &Authority, name: &str, clients: &str) -> Broker {
    let (cert, key) = authority.sign(name);
    let config = format!(
        "tls-port @TLS@\ntls-cert-file @FOLDER@/server.pem\ntls-key-file @FOLDER@/server.key\n\
         tls-ca-cert-file @FOLDER@/ca.pem\ntls-auth-clients {clients}"
    );
    let options = Options::default().config(config);
    let options = options.file("server.pem", cert).file("server.key", key);
    server_with(options.file("ca.pem", authority.pem())).await
}

/// A file beside the server's.
fn file(server: &Broker, name: &str, text: &str) -> String {
    let file = Path::new(&server.folder()).join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn url(server: &Broker, options: &str) -> String {
    let port = server.nodes()[0].port("tls").unwrap();
    format!("rediss://127.0.0.1:{port}?connect_timeout=5s&{options}")
}

async fn works(url: &str) {
    let bench = Bench::new(url).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("m").await.unwrap();
    ack(&*consumer, next(&*consumer).await.token).await.unwrap();
}

async fn refused(url: &str) {
    let error = is(connect(url, Setup::default()).await, ErrorKind::Unauthenticated);
    assert_eq!(error.retryability(), Retryability::Permanent);
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_by_no_other() {
    let (right, other) = (Authority::new(), Authority::new());
    let server = server(&right, "127.0.0.1", "no").await;
    works(&url(&server, &format!("ca={}", file(&server, "right.pem", &right.pem())))).await;
    refused(&url(&server, &format!("ca={}", file(&server, "other.pem", &other.pem())))).await;
    // The roots of the system do not know it either.
    refused(&url(&server, "")).await;
    is(connect(&url(&server, "ca=/no/such/file"), Setup::default()).await, ErrorKind::Config);
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let authority = Authority::new();
    let server = server(&authority, "elsewhere.example", "no").await;
    refused(&url(&server, &format!("ca={}", file(&server, "ca.pem", &authority.pem())))).await;
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate_of_ours() {
    let authority = Authority::new();
    let server = server(&authority, "127.0.0.1", "yes").await;
    let ca = file(&server, "ca.pem", &authority.pem());
    let (cert, key) = authority.sign("client");
    let (cert, key) = (file(&server, "client.pem", &cert), file(&server, "client.key", &key));
    works(&url(&server, &format!("ca={ca}&cert={cert}&key={key}"))).await;
    refused(&url(&server, &format!("ca={ca}"))).await;
}
