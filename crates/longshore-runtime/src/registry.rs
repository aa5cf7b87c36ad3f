use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use longshore_core::{Broker, Error, Result, Setup};

type Connect = dyn Fn(String, Setup) -> BoxFuture<'static, Result<Arc<dyn Broker>>> + Send + Sync;

/// Which backend answers to which URL scheme. The facade's has the backends that it was built with;
/// third parties add theirs.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Vec<(&'static str, Arc<Connect>)>,
    absent: Vec<(&'static str, &'static str)>,
}

impl Registry {
    /// A registry without any backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend; one that has the scheme already is replaced.
    #[must_use]
    pub fn register<F, Fut>(mut self, scheme: &'static str, connect: F) -> Self
    where
        F: Fn(String, Setup) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn Broker>>> + Send + 'static,
    {
        self.entries.retain(|(known, _)| *known != scheme);
        self.entries.push((scheme, Arc::new(move |url, setup| Box::pin(connect(url, setup)))));
        self
    }

    /// Says why a scheme that users may expect is not there: `why` completes "scheme `x` ...".
    #[must_use]
    pub fn explain(mut self, scheme: &'static str, why: &'static str) -> Self {
        self.absent.push((scheme, why));
        self
    }

    /// The schemes that are there.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.iter().map(|(scheme, _)| *scheme)
    }

    /// Connects to the broker that `url` names.
    ///
    /// # Errors
    /// `Config` for a scheme that is not there, listing what is; otherwise the backend's.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, no connection stays.
    pub async fn connect(&self, url: &str, setup: Setup) -> Result<Arc<dyn Broker>> {
        // Only the scheme is ever shown: the rest of a URL may hold a password.
        let Some((scheme, _)) = url.split_once("://") else {
            return Err(Error::config(format!(
                "the broker's URL has no scheme, as in `memory://`; {}",
                self.built_in()
            )));
        };
        let scheme = scheme.to_ascii_lowercase();
        if let Some((_, connect)) = self.entries.iter().find(|(known, _)| *known == scheme) {
            return connect(url.to_owned(), setup).await;
        }
        let why = self.absent.iter().find(|(known, _)| *known == scheme);
        let why = why.map_or("is unknown", |(_, why)| why);
        let scheme: String = scheme.chars().filter(char::is_ascii_graphic).take(32).collect();
        Err(Error::config(format!("scheme `{scheme}` {why}; {}", self.built_in())))
    }

    fn built_in(&self) -> String {
        let mut schemes: Vec<_> = self.schemes().collect();
        schemes.sort_unstable();
        match schemes.is_empty() {
            true => "no backend is built in".to_owned(),
            false => format!("built in: {}", schemes.join(", ")),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.schemes().collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_core::ErrorKind;

    async fn refused(url: &str) -> String {
        let registry = Registry::new()
            .register("b", |_, _| async { Err(Error::config("reached b")) })
            .register("a", |_, _| async { Err(Error::config("reached a")) })
            .explain("kafka", "needs feature `kafka`");
        let error = registry.connect(url, Setup::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_with_what_is() {
        assert_eq!(refused("a://x").await, "reached a");
        assert_eq!(refused("A://x").await, "reached a");
        let text = refused("kafka://u:secret@host").await;
        assert_eq!(text, "scheme `kafka` needs feature `kafka`; built in: a, b");
        assert_eq!(refused("gopher://").await, "scheme `gopher` is unknown; built in: a, b");
        assert!(refused("secret").await.starts_with("the broker's URL has no scheme"));
        assert!(!refused("secret").await.contains("secret"));
    }
}
