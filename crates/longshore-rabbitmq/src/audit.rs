//! Settings of the server that weaken a promise, as far as the protocol tells.

use longshore_core::{Finding, Result, Severity};

use crate::ask::Questions;
use crate::config::QueueType;
use crate::names::UNROUTED;
use crate::shared::Shared;

pub(crate) async fn audit(shared: &Shared) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |severity, setting: &str, message: String| {
        findings.push(Finding { severity, setting: setting.to_owned(), message });
    };
    let session = shared.outgoing.session(shared.deadline()).await?;
    let greeting = &session.greeting;
    if is_lossy(&greeting.version) {
        let text = "3.13.0 to 3.13.2 take a repeated dead-lettering for a cycle and drop the message; \
                    use 3.13.3 or later";
        add(Severity::Danger, "version", text.to_owned());
    }
    if shared.config.queue_type == QueueType::Classic {
        let text = "classic queues have no replicas, do not count deliveries and dead-letter at most \
                    once; use `queue_type=quorum`";
        add(Severity::Warning, "queue_type", text.to_owned());
    }
    let parked = Questions::new(&shared.incoming, shared.deadline()).queue(UNROUTED).await?;
    let parked = parked.map_or(0, |queue| queue.message_count());
    if parked > 0 {
        let text = format!(
            "{parked} messages have nowhere to go: they were published to a topic without a group, or \
             are retries of a group that was deleted. These go back when their group is declared again"
        );
        add(Severity::Warning, UNROUTED, text);
    }
    let text = "a policy can lower `delivery-limit` or set a `message-ttl` for these queues, and the \
                protocol does not tell: look with `rabbitmqctl list_policies`";
    add(Severity::Info, "policies", text.to_owned());
    Ok(findings)
}

fn is_lossy(version: &str) -> bool {
    matches!(version, "3.13.0" | "3.13.1" | "3.13.2")
}
