//! The memory backend's side of the conformance suite.

use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use longshore_conformance::{Access, Foreign, Harness, Target};
use longshore_core::{Broker, Error, ErrorKind, InstanceId, Result, Setup};
use longshore_memory::{Memory, connect};

const URL: &str = "memory://conformance";

fn main() -> ExitCode {
    longshore_conformance::main(|target| {
        Ok(MemoryHarness(match target {
            Target::Own => URL.to_owned(),
            Target::Given(url) => url,
        }))
    })
}

/// One named broker, which all clients of this process share.
#[derive(Debug)]
struct MemoryHarness(String);

#[async_trait::async_trait]
impl Harness for MemoryHarness {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn connect(&self, _: &str, setup: Setup) -> Result<Arc<dyn Broker>> {
        Ok(Arc::new(connect(&self.0, setup).await?))
    }

    fn not_applicable(&self, code: &str) -> Option<&'static str> {
        match code {
            "K1" => Some("the broker is part of this process: there is no server to restart"),
            "K6" => Some("a broker of this process has no users, so no credentials to refuse"),
            _ => None,
        }
    }

    fn url(&self, _: &str, access: Access) -> Option<String> {
        (access == Access::Full).then(|| self.0.clone())
    }

    fn open(
        &self,
        url: String,
        setup: Setup,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn Broker>>>> {
        Some(async move { Ok(Arc::new(connect(&url, setup).await?) as Arc<dyn Broker>) }.boxed())
    }

    fn virtual_clock(&self) -> bool {
        true
    }

    fn crash<'a>(
        &'a self,
        broker: &'a dyn Broker,
        instance: &'a InstanceId,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        Some(async move { native(broker).map(|memory| memory.crash(instance)) }.boxed())
    }

    fn inject<'a>(
        &'a self,
        broker: &'a dyn Broker,
        Foreign { topic, body, headers }: Foreign,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        Some(async move { native(broker)?.inject(&topic, body, headers) }.boxed())
    }
}

fn native(broker: &dyn Broker) -> Result<&Memory> {
    let wrong = || Error::new(ErrorKind::Unexpected, "the native type is not `Memory`");
    broker.native().downcast_ref().ok_or_else(wrong)
}
