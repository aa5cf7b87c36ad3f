//! The backends that this build has: the only file that names them all.

use longshore_runtime::Registry;

/// A registry of the backends that this build has. Add others by [`Registry::register`].
#[must_use]
pub fn registry() -> Registry {
    let registry = Registry::new();

    #[cfg(feature = "memory")]
    let registry = registry.register("memory", |url, setup| async move {
        let memory = longshore_memory::connect(&url, setup).await?;
        Ok(std::sync::Arc::new(memory) as _)
    });
    #[cfg(not(feature = "memory"))]
    let registry = registry.explain("memory", "needs feature `memory`");

    let schemes = ["nats", "tls"];
    #[cfg(feature = "nats")]
    let registry = schemes.into_iter().fold(registry, |known, scheme| {
        known.register(scheme, |url, setup| async move {
            let nats = longshore_nats::connect(&url, setup).await?;
            Ok(std::sync::Arc::new(nats) as _)
        })
    });
    #[cfg(not(feature = "nats"))]
    let registry = schemes
        .into_iter()
        .fold(registry, |known, scheme| known.explain(scheme, "needs feature `nats`"));

    let schemes = ["amqp", "amqps"];
    #[cfg(feature = "rabbitmq")]
    let registry = schemes.into_iter().fold(registry, |known, scheme| {
        known.register(scheme, |url, setup| async move {
            let rabbitmq = longshore_rabbitmq::connect(&url, setup).await?;
            Ok(std::sync::Arc::new(rabbitmq) as _)
        })
    });
    #[cfg(not(feature = "rabbitmq"))]
    let registry = schemes
        .into_iter()
        .fold(registry, |known, scheme| known.explain(scheme, "needs feature `rabbitmq`"));

    let schemes = ["redis", "rediss", "valkey", "valkeys"];
    #[cfg(feature = "redis")]
    let registry = schemes.into_iter().fold(registry, |known, scheme| {
        known.register(scheme, |url, setup| async move {
            let redis = longshore_redis::connect(&url, setup).await?;
            Ok(std::sync::Arc::new(redis) as _)
        })
    });
    #[cfg(not(feature = "redis"))]
    let registry = schemes
        .into_iter()
        .fold(registry, |known, scheme| known.explain(scheme, "needs feature `redis`"));

    ["kafka"]
        .into_iter()
        .fold(registry, |known, scheme| known.explain(scheme, "has no backend in this version yet"))
}
