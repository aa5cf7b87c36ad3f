//! TLS: trust, mutual TLS, and a login by certificate.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use longshore_core::Broker as _;
use longshore_core::{Error, ErrorKind, Message, Retryability, Setup, Topology};
use longshore_rabbitmq::{RabbitMq, connect};
use longshore_testbed::{Broker, Options};

use crate::certificates::Authority;
use crate::server::{control, own};
use crate::support::{is, send, topic};

/// A server with a certificate of `authority`, and `more` in its configuration.
fn options(authority: &Authority, more: &str) -> Options {
    let (cert, key) = authority.sign("127.0.0.1");
    let config = format!(
        "listeners.ssl.1 = 127.0.0.1:@TLS@\nssl_options.cacertfile = @FOLDER@/ca.pem\n\
         ssl_options.certfile = @FOLDER@/server.pem\nssl_options.keyfile = @FOLDER@/server.key\n{more}"
    );
    Options::default()
        .file("ca.pem", authority.pem())
        .file("server.pem", cert)
        .file("server.key", key)
        .config(config)
}

/// A file beside the server's.
fn file(broker: &Broker, name: &str, text: &str) -> String {
    let file = broker.folder().join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn url(broker: &Broker, options: &str) -> String {
    let port = broker.nodes()[0].port("tls").unwrap();
    format!("amqps://127.0.0.1:{port}?connect_timeout=20s&{options}")
}

async fn works(url: &str) -> RabbitMq {
    let rabbit = connect(url, Setup::default()).await.unwrap();
    let topic = topic();
    rabbit.declare(&Topology::topic(topic.clone())).await.unwrap();
    let publisher = rabbit.publisher(&topic).await.unwrap();
    send(&*publisher, Message::new("m")).await.unwrap();
    rabbit
}

/// Told as what it is, at once, and not tried again.
async fn refused(url: &str) -> Error {
    let begun = Instant::now();
    let error = is(connect(url, Setup::default()).await, ErrorKind::Unauthenticated);
    assert_eq!(error.retryability(), Retryability::Permanent);
    assert!(begun.elapsed() < Duration::from_secs(10), "tried for {:?}", begun.elapsed());
    error
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_by_no_other() {
    let (right, other) = (Authority::new(), Authority::new());
    let broker = own(options(&right, "")).await;
    let ca = file(&broker, "right.pem", &right.pem());
    works(&url(&broker, &format!("ca={ca}"))).await;
    let ca = file(&broker, "other.pem", &other.pem());
    let error = refused(&url(&broker, &format!("ca={ca}"))).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    // Without a file it is the system's authorities, of which ours is none.
    refused(&url(&broker, "")).await;
    // Plain words to a port of TLS: nobody answers.
    let plain = url(&broker, "").replace("amqps", "amqp").replace("20s", "3s");
    is(connect(&plain, Setup::default()).await, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_may_log_in_by_it() {
    let (ours, other) = (Authority::new(), Authority::new());
    let more = "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
                auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n\
                ssl_cert_login_from = common_name";
    let plugins = "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].";
    let broker = own(options(&ours, more).file("enabled_plugins", plugins)).await;
    let ca = file(&broker, "right.pem", &ours.pem());
    let pair = |authority: &Authority, name: &str| {
        let (cert, key) = authority.sign(name);
        let cert = file(&broker, &format!("{name}.pem"), &cert);
        let key = file(&broker, &format!("{name}.key"), &key);
        format!("ca={ca}&cert={cert}&key={key}")
    };
    let known = pair(&ours, "service.example");
    works(&url(&broker, &known)).await;
    refused(&url(&broker, &format!("ca={ca}"))).await;
    refused(&url(&broker, &pair(&other, "stranger.example"))).await;

    // The certificate is good, and names no user.
    refused(&url(&broker, &format!("{known}&auth=external"))).await;
    control(&broker, &["add_user", "service.example", "unused"]).await;
    control(&broker, &["set_permissions", "service.example", ".*", ".*", ".*"]).await;
    let rabbit = works(&url(&broker, &format!("{known}&auth=external"))).await;
    let connections = control(&broker, &["list_connections", "user"]).await;
    assert!(connections.contains("service.example"), "{connections}");
    rabbit.close().await.unwrap();
}
