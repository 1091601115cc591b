//! The courier: webhooks and alerts. Bounded per tenant, so that one team's slow endpoint delays nobody else.

mod alerts;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Supervised};
use aviary_crds::validated::WebhookType;
use aviary_rollout::HookAnswer;
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};

use crate::courier::alerts::Alerts;
use crate::hooks::{PreparedHook, WebhookSuccess};
use crate::lifetime::Lifetime;
use crate::messages::{CallHooks, CanaryGone, CanaryId, EffectOutcome, SendEvent};
use crate::metrics::Metrics;
use crate::supervision::panic_text;
use crate::transport::{HttpResponse, NoAnswer, Transport};

/// Calls under way at once for one namespace. A canary has one or two (its hooks, its events), and they may take minutes: an
/// acceptance test answers when it is over. So many canaries of a team can be tested side by side and delay none of its
/// others; a quarter of the 1,024 files that a process may have open by tradition is what one team can take.
const PER_NAMESPACE: usize = 256;
/// First wait between tries, as in Flagger's client.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait between tries, as in Flagger's client.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Events that may wait for the event hooks of one canary: the longest release makes some fifty. More are dropped and
/// logged; Kubernetes has them.
const EVENTS_PER_CANARY: usize = 256;

/// The calls of one event, and the bound that they are made under. A canary without events holds none.
type EventCalls = (Arc<Semaphore>, Vec<PreparedHook>);

/// Sends webhooks and alerts.
pub(crate) struct Courier {
    transport: Arc<dyn Transport>,
    metrics: Metrics,
    lifetime: Lifetime,
    tenants: HashMap<String, Arc<Semaphore>>,
    /// Event hooks, in order for each canary.
    events: HashMap<CanaryId, mpsc::Sender<EventCalls>>,
    alerts: Alerts,
    success: WebhookSuccess,
}

impl Courier {
    /// A courier with nothing to do.
    pub(crate) fn new(transport: Arc<dyn Transport>, metrics: Metrics, lifetime: Lifetime) -> Courier {
        Courier {
            transport,
            metrics,
            lifetime,
            tenants: HashMap::new(),
            events: HashMap::new(),
            alerts: Alerts::default(),
            success: WebhookSuccess::default(),
        }
    }

    /// With these statuses of webhooks as a yes.
    pub(crate) fn accepting(self, success: WebhookSuccess) -> Courier {
        Courier { success, ..self }
    }

    fn tenant(&mut self, namespace: &str) -> Arc<Semaphore> {
        // A namespace whose calls are all done costs nothing.
        self.tenants.retain(|_, bound| Arc::strong_count(bound) > 1);
        let bound = self.tenants.entry(namespace.to_owned());
        bound.or_insert_with(|| Arc::new(Semaphore::new(PER_NAMESPACE))).clone()
    }
}

impl Actor for Courier {
    type Context = Context<Self>;
}

impl Supervised for Courier {}

impl Handler<CallHooks> for Courier {
    type Result = ();

    fn handle(&mut self, order: CallHooks, _: &mut Context<Self>) {
        let bound = self.tenant(&order.canary.namespace);
        let (transport, metrics, success) = (self.transport.clone(), self.metrics.clone(), self.success);
        self.lifetime.spawn(async move {
            let CallHooks { kind, hooks, reply, .. } = order;
            let _permit = bound.acquire_owned().await;
            let mut answers = Vec::new();
            for hook in hooks {
                let result = call(transport.as_ref(), &hook, success).await;
                let label = if result.is_ok() { "success" } else { "failure" };
                metrics.webhooks.with_label_values(&[kind.as_str(), label]).inc();
                let decided = is_decided(kind, result.is_ok());
                answers.push(HookAnswer { name: hook.name, result });
                if decided {
                    break;
                }
            }
            reply.send(EffectOutcome::Hooks(kind, answers));
        });
    }
}

/// Gates end at the first no, rollback hooks at the first yes.
fn is_decided(kind: WebhookType, success: bool) -> bool {
    match kind {
        WebhookType::Rollback => success,
        WebhookType::ConfirmRollout
        | WebhookType::PreRollout
        | WebhookType::Rollout
        | WebhookType::ConfirmTrafficIncrease
        | WebhookType::ConfirmPromotion
        | WebhookType::PostRollout
        | WebhookType::Event => !success,
    }
}

/// One call with its tries. The error text never holds a body of the other side: it would end up in events that whole
/// teams can read.
async fn call(transport: &dyn Transport, hook: &PreparedHook, success: WebhookSuccess) -> Result<(), String> {
    let attempts = hook.retries.saturating_add(1);
    let mut wait = FIRST_RETRY;
    let mut tried = 0;
    loop {
        tried += 1;
        let (cause, retry_after) = match transport.send(hook.request.clone()).await {
            Ok(HttpResponse { status, .. }) if success.includes(status) => return Ok(()),
            Ok(HttpResponse { status, .. }) if !is_retried(status) => return Err(format!("status {status}")),
            // Of other statuses Flagger's client does not ask how long to wait.
            Ok(HttpResponse { status, retry_after, .. }) => {
                (format!("status {status}"), retry_after.filter(|_| matches!(status, 429 | 503)))
            }
            Err(error) if is_final(&error) => return Err(error.to_string()),
            Err(error) => (error.to_string(), None),
        };
        if tried >= attempts {
            return Err(format!("giving up after {tried} attempt(s): {cause}"));
        }
        tokio::time::sleep(retry_after.unwrap_or(wait).min(LONGEST_RETRY)).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

/// A certificate that does not fit, and redirections without an end, are the same at the next try; Flagger's client makes
/// none either. The texts are those of rustls and reqwest, which tell it in no other way this far out.
fn is_final(error: &NoAnswer) -> bool {
    ["invalid peer certificate", "too many redirects"].iter().any(|text| error.0.contains(text))
}

fn is_retried(status: u16) -> bool {
    status == 429 || (status >= 500 && status != 501)
}

impl Handler<SendEvent> for Courier {
    type Result = ();

    fn handle(&mut self, SendEvent { canary, hooks }: SendEvent, _: &mut Context<Self>) {
        let bound = self.tenant(&canary.namespace);
        let (transport, metrics, success) = (self.transport.clone(), self.metrics.clone(), self.success);
        let queue = self.events.entry(canary.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(EVENTS_PER_CANARY);
            self.lifetime.spawn(send_events(canary.clone(), transport, metrics, success, receiver));
            sender
        });
        if queue.try_send((bound, hooks)).is_err() {
            tracing::error!(%canary, "event hooks are too slow, an event was not sent to them");
        }
    }
}

async fn send_events(
    canary: CanaryId,
    transport: Arc<dyn Transport>,
    metrics: Metrics,
    success: WebhookSuccess,
    mut receiver: mpsc::Receiver<EventCalls>,
) {
    while let Some((bound, hooks)) = receiver.recv().await {
        let _permit = bound.acquire_owned().await;
        for hook in hooks {
            // One call that goes wrong must not silence the events that follow.
            let result =
                AssertUnwindSafe(async { call(transport.as_ref(), &hook, success).await }).catch_unwind().await;
            let result = result.unwrap_or_else(|payload| Err(format!("panic: {}", panic_text(payload.as_ref()))));
            let label = if result.is_ok() { "success" } else { "failure" };
            metrics.webhooks.with_label_values(&[WebhookType::Event.as_str(), label]).inc();
            if let Err(error) = result {
                tracing::error!(%canary, hook = hook.name, "error sending event to webhook: {error}");
            }
        }
    }
}

impl Handler<CanaryGone> for Courier {
    type Result = ();

    fn handle(&mut self, CanaryGone(canary): CanaryGone, _: &mut Context<Self>) {
        self.events.remove(&canary);
        self.alerts.forget(&canary);
    }
}

#[cfg(test)]
mod tests;
