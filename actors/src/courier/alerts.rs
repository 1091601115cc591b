//! Alerts: sent once each, retried for a while, and never at the cost of another tenant.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler};
use aviary_crds::validated::AlertSeverity;
use aviary_providers::HttpRequest;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Courier, FIRST_RETRY, LONGEST_RETRY, is_retried};
use crate::hooks::PreparedAlert;
use crate::messages::{CanaryId, EffectOutcome, SendAlert};
use crate::metrics::Metrics;
use crate::supervision::panic_text;
use crate::transport::Transport;

/// Tries of one alert: with waits of 1, 2 and 4 s they outlast the restart of a proxy. A chat that is away for longer misses
/// the alert; the event and the status tell the same.
const TRIES: u32 = 4;
/// Alerts being posted at once for one namespace. Chats allow about one message a second, so more would only be refused.
pub(super) const POSTS_PER_NAMESPACE: usize = 4;
/// Alerts of one namespace that wait to be posted or retried, some hundred bytes to 2 kB each. A busy team's hundred
/// canaries that all end at once fit in.
pub(super) const WAITING_PER_NAMESPACE: usize = 256;
/// Alerts of one canary that are known to have been sent: a step that is made again has one, and the run before has few.
const REMEMBERED: usize = 4;
/// How long a canary's status waits for its alert: as long as one try may take (and Flagger waits).
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for good news: a release does not wait for a chat that is slow.
const PATIENCE_FOR_NEWS: Duration = Duration::from_secs(1);

/// What is known of alerts.
#[derive(Default)]
pub(super) struct Alerts {
    /// Ids of alerts that were taken, oldest first.
    taken: HashMap<CanaryId, VecDeque<String>>,
    tenants: HashMap<String, Tenant>,
}

/// The bounds of one namespace.
#[derive(Clone)]
struct Tenant {
    posts: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Alerts {
    /// A canary is gone.
    pub(super) fn forget(&mut self, canary: &CanaryId) {
        self.taken.remove(canary);
    }

    /// Whether an alert has not been taken before. A step that is made again, because its status could not be written, has
    /// told already.
    fn is_new(&mut self, canary: &CanaryId, id: &str) -> bool {
        let taken = self.taken.entry(canary.clone()).or_default();
        if taken.iter().any(|known| known == id) {
            return false;
        }
        if taken.len() == REMEMBERED {
            taken.pop_front();
        }
        taken.push_back(id.to_owned());
        true
    }

    fn tenant(&mut self, namespace: &str) -> Tenant {
        // A namespace whose alerts are all sent costs nothing.
        self.tenants.retain(|_, tenant| tenant.waiting.available_permits() < WAITING_PER_NAMESPACE);
        let tenant = self.tenants.entry(namespace.to_owned()).or_insert_with(|| Tenant {
            posts: Arc::new(Semaphore::new(POSTS_PER_NAMESPACE)),
            waiting: Arc::new(Semaphore::new(WAITING_PER_NAMESPACE)),
        });
        tenant.clone()
    }
}

impl Handler<SendAlert> for Courier {
    type Result = ();

    fn handle(&mut self, order: SendAlert, _: &mut Context<Self>) {
        let SendAlert { canary, severity, id, alerts, reply } = order;
        let mut first_tries = Vec::new();
        if self.alerts.is_new(&canary, &id) {
            let tenant = self.alerts.tenant(&canary.namespace);
            for alert in alerts {
                let Ok(place) = tenant.waiting.clone().try_acquire_owned() else {
                    self.metrics.alerts.with_label_values(&["failure"]).inc();
                    tracing::error!(%canary, provider = alert.provider, id, "too many alerts wait, one is not sent");
                    continue;
                };
                let (tried, first_try) = oneshot::channel();
                first_tries.push(first_try);
                let post = Post {
                    transport: self.transport.clone(),
                    metrics: self.metrics.clone(),
                    posts: tenant.posts.clone(),
                    canary: canary.clone(),
                    id: id.clone(),
                };
                self.lifetime.spawn(post.send(alert, tried, place));
            }
        }
        let Some(reply) = reply else { return };
        let patience = match severity {
            AlertSeverity::Info => PATIENCE_FOR_NEWS,
            AlertSeverity::Warn | AlertSeverity::Error => PATIENCE,
        };
        self.lifetime.spawn(async move {
            // Late or not, what is under way goes on by itself.
            let _ = tokio::time::timeout(patience, join_all(first_tries)).await;
            reply.send(EffectOutcome::Told);
        });
    }
}

/// One alert on its way to one chat.
struct Post {
    transport: Arc<dyn Transport>,
    metrics: Metrics,
    posts: Arc<Semaphore>,
    canary: CanaryId,
    id: String,
}

impl Post {
    /// Sends it, or says why not. `tried` is dropped after the first try, `_place` at the end.
    async fn send(self, alert: PreparedAlert, tried: oneshot::Sender<()>, _place: OwnedSemaphorePermit) {
        let PreparedAlert { provider, request } = alert;
        let result = match request {
            Ok(request) => self.insist(request, tried).await,
            Err(error) => Err(error),
        };
        let (canary, id) = (&self.canary, &self.id);
        self.metrics.alerts.with_label_values(&[if result.is_ok() { "success" } else { "failure" }]).inc();
        match result {
            Ok(()) => tracing::debug!(%canary, provider, id, "alert was sent"),
            Err(error) => tracing::error!(%canary, provider, id, "alert can't be sent: {error}"),
        }
    }

    /// Tries until the chat takes it or refuses it for good. Errors hold neither the address nor the answer's body.
    async fn insist(&self, request: HttpRequest, tried: oneshot::Sender<()>) -> Result<(), String> {
        let mut tried = Some(tried);
        let mut wait = FIRST_RETRY;
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.try_once(request.clone()).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            tried.take();
            if tries == TRIES || !failure.may_pass {
                return Err(failure.cause);
            }
            tokio::time::sleep(failure.retry_after.unwrap_or(wait).min(LONGEST_RETRY)).await;
            wait *= 2;
        }
    }

    async fn try_once(&self, request: HttpRequest) -> Result<(), Failure> {
        let _permit = self.posts.acquire().await;
        // In-process endpoints may never answer; the network's own limit is the same.
        let limit = request.timeout;
        let sent = AssertUnwindSafe(async { self.transport.send(request).await }).catch_unwind();
        let failure = |cause: String, may_pass, retry_after| Err(Failure { cause, may_pass, retry_after });
        match tokio::time::timeout(limit, sent).await {
            Ok(Ok(Ok(answer))) if (200..300).contains(&answer.status) => Ok(()),
            Ok(Ok(Ok(answer))) => {
                failure(format!("bad response {}", answer.status), is_retried(answer.status), answer.retry_after)
            }
            Ok(Ok(Err(error))) => failure(error.to_string(), true, None),
            Ok(Err(panic)) => failure(format!("panic: {}", panic_text(panic.as_ref())), false, None),
            Err(_) => failure("timeout exceeded while awaiting an answer".to_owned(), true, None),
        }
    }
}

struct Failure {
    cause: String,
    may_pass: bool,
    retry_after: Option<Duration>,
}
