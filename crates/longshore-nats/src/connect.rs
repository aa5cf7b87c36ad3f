//! The first connection.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use longshore_core::{Error, ErrorKind, Result, Retryability, Setup};
use longshore_driver::{Backoff, BackoffConfig};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Auth, Config};
use crate::error::{self, BACKEND};
use crate::link::Link;
use crate::tls;

/// Two filters in one consumer: below it a group could not read its redrive lane.
const OLDEST: (u64, u64) = (2, 10);
/// Twice unanswered, and a half-open connection is noticed; the client's own default is minutes.
const PING: Duration = Duration::from_secs(10);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Connects, trying again as long as the configuration allows where no server answers.
///
/// # Errors
/// `Unauthenticated` at once; `Unavailable` when the time is over; `Unsupported` where the server
/// is too old.
pub(crate) async fn connect(config: &Config, setup: &Setup, link: &Arc<Link>) -> Result<Client> {
    let deadline = Instant::now() + config.connect_timeout;
    let mut backoff = Backoff::new(BackoffConfig::default());
    loop {
        let options = options(config, setup, link).await?;
        let attempt = timeout_at(deadline, options.connect(&config.servers[..]));
        let why = match attempt.await {
            Ok(Ok(client)) => {
                check_version(&client.server_info().version)?;
                return Ok(client);
            }
            Ok(Err(native)) => error::connect(native),
            Err(_) => error::error(ErrorKind::Unavailable, "no server answered in time"),
        };
        if why.retryability() == Retryability::Permanent {
            return Err(why);
        }
        let delay = backoff.delay(fastrand::f64());
        backoff.failed();
        if Instant::now() + delay >= deadline {
            return Err(exhausted(config, why));
        }
        tracing::debug!(?delay, error = %why, "no connection yet; the next attempt follows");
        sleep(delay).await;
    }
}

fn exhausted(config: &Config, why: Error) -> Error {
    error::error(ErrorKind::Unavailable, "no server could be reached")
        .with_context("servers", config.servers.join(","))
        .with_retryability(Retryability::Exhausted)
        .with_source(why)
}

/// Dropped by the client with the task that tells of events: after it nothing is told any more.
struct Listening(Arc<Link>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.deserted();
    }
}

async fn options(config: &Config, setup: &Setup, link: &Arc<Link>) -> Result<ConnectOptions> {
    let (events, delays) = (Listening(link.clone()), link.clone());
    let mut options = ConnectOptions::new()
        .name(format!("longshore {}", setup.instance))
        .tls_client_config(tls::client_config(config)?)
        .require_tls(config.require_tls)
        .ping_interval(PING)
        .connection_timeout(ATTEMPT)
        .request_timeout(Some(config.publish_timeout))
        .reconnect_delay_callback(move |attempt| delays.delay(attempt))
        .event_callback(move |event| {
            events.0.event(event);
            std::future::ready(())
        });
    if config.tls_first {
        options = options.tls_first();
    }
    Ok(match &config.auth {
        Auth::None => options,
        Auth::User { user, password } => {
            options.user_and_password(user.clone(), password.reveal().to_owned())
        }
        Auth::Token(token) => options.token(token.reveal().to_owned()),
        Auth::Nkey(seed) => options.nkey(seed.reveal().to_owned()),
        Auth::Creds(path) => options.credentials_file(path).await.map_err(|native| {
            // The cause names the file's fault and quotes none of it.
            Error::config(format!("option `creds`: cannot use {}", path.display()))
                .with_backend(BACKEND)
                .with_source(native)
        })?,
    })
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u64>().ok());
    let found = (parts.next().flatten(), parts.next().flatten());
    match found {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(error::error(
            ErrorKind::Unsupported,
            "the server is older than 2.10 and has no consumers with two filters, which a group \
             needs to read its redriven messages",
        )
        .with_context("version", version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_2_10_are_refused_with_what_they_lack() {
        for good in ["2.10.0", "2.10.27", "2.15.1", "3.0.0-beta.1", "2.10-dev"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["2.9.10", "1.4.1", "", "latest"] {
            let error = check_version(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("two filters"));
        }
    }
}
