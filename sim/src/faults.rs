//! Faults on demand: errors, delays, lost answers, hanging requests, dropped watches, compaction, killed clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::calls::{Call, Verb};
use crate::random::Random;
use crate::store::{GroupKind, StatusError, Store};

/// What happens to a request that a rule hits.
#[derive(Clone, Debug)]
pub enum Action {
    /// It is refused with this error and has no effect.
    Error(StatusError),
    /// It is served after a delay of cluster time.
    Delay(Duration),
    /// It takes effect, then the connection breaks before the answer.
    LoseResponse,
    /// It never takes effect and is never answered.
    Hang,
}

impl Action {
    /// A refusal in the words in which a real server gives it for this code (409, 403, 429, 500, 503, 504; anything else gets a
    /// plain message).
    #[must_use]
    pub fn error(code: u16) -> Self {
        let error = match code {
            403 => StatusError::new(403, "Forbidden", "forbidden: injected fault"),
            409 => StatusError::new(
                409,
                "Conflict",
                "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again",
            ),
            429 => StatusError::new(429, "TooManyRequests", "Too many requests, please try again later.")
                .with_retry_after(1),
            500 => StatusError::new(500, "InternalError", "Internal error occurred: injected fault"),
            503 => StatusError::new(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => StatusError::new(504, "Timeout", "request did not complete within the allotted timeout"),
            other => StatusError::new(other, "", "injected fault"),
        };
        Self::Error(error)
    }

    /// 429 with a `Retry-After` of this many seconds.
    #[must_use]
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        Self::Error(
            StatusError::new(429, "TooManyRequests", "Too many requests, please try again later.")
                .with_retry_after(retry_after_seconds),
        )
    }
}

/// Which requests are hit, and what happens to them. A field that is not set matches everything.
#[derive(Clone, Debug)]
pub struct Rule {
    client: Option<String>,
    verbs: Vec<Verb>,
    resource: Option<String>,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    first: u64,
    times: u64,
    probability: f64,
    action: Action,
}

impl Rule {
    /// A rule that hits every request.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            client: None,
            verbs: Vec::new(),
            resource: None,
            subresource: None,
            namespace: None,
            name: None,
            first: 1,
            times: u64::MAX,
            probability: 1.0,
            action,
        }
    }

    /// Only requests with this User-Agent.
    #[must_use]
    pub fn client(mut self, client: &str) -> Self {
        self.client = Some(client.to_owned());
        self
    }

    /// Only these verbs.
    #[must_use]
    pub fn verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// Only verbs that can change the cluster.
    #[must_use]
    pub fn writes(self) -> Self {
        self.verbs(&[Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection])
    }

    /// Only this resource (plural, e.g. `canaries`).
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only this subresource; an empty one means the main resource.
    #[must_use]
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }

    /// Only this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Only objects of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only the n-th matching request, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.first = nth.max(1);
        self.times = 1;
        self
    }

    /// At most this many matching requests, then the rule is spent.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Each matching request with this probability, drawn from the cluster's seed.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|wanted| wanted == actual);
        is(&self.client, &call.key.client)
            && (self.verbs.is_empty() || self.verbs.contains(&call.key.verb))
            && is(&self.resource, &call.key.resource)
            && is(&self.subresource, &call.key.subresource)
            && is(&self.namespace, &call.namespace)
            && is(&self.name, &call.name)
    }
}

/// Names a rule, to remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// The cluster's faults. A cheap handle; everything can be changed while the cluster runs.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// Whether there is anything to look up at all; keeps the healthy path free of the lock.
    armed: AtomicBool,
    plan: Mutex<Plan>,
    killed: Notify,
}

struct Plan {
    random: Random,
    rules: Vec<ArmedRule>,
    next_rule: u64,
    injected: u64,
    clients: HashMap<String, ClientFate>,
    /// Who hears of the requests that are hit.
    listeners: Vec<mpsc::UnboundedSender<Call>>,
}

struct ArmedRule {
    id: RuleId,
    rule: Rule,
    matched: u64,
    hits: u64,
}

#[derive(Clone, Copy, Debug)]
struct ClientFate {
    writes_left: u64,
    counts_events: bool,
}

impl Faults {
    pub(crate) fn new(store: Store, seed: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                armed: AtomicBool::new(false),
                plan: Mutex::new(Plan {
                    random: Random::new(seed),
                    rules: Vec::new(),
                    next_rule: 0,
                    injected: 0,
                    clients: HashMap::new(),
                    listeners: Vec::new(),
                }),
                killed: Notify::new(),
            }),
        }
    }

    /// Adds a rule. Rules are tried in the order of their arrival; the first that hits decides.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut plan = self.inner.plan.lock();
        let id = RuleId(plan.next_rule);
        plan.next_rule += 1;
        plan.rules.push(ArmedRule { id, rule, matched: 0, hits: 0 });
        self.rearm(&plan);
        id
    }

    /// Removes a rule.
    pub fn remove(&self, id: RuleId) {
        let mut plan = self.inner.plan.lock();
        plan.rules.retain(|armed| armed.id != id);
        self.rearm(&plan);
    }

    /// Removes all rules. Killed clients stay killed.
    pub fn clear(&self) {
        let mut plan = self.inner.plan.lock();
        plan.rules.clear();
        self.rearm(&plan);
    }

    /// How many requests were hit by a rule so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.inner.plan.lock().injected
    }

    /// The requests that are hit by a rule from now on, as they come.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Call> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inner.plan.lock().listeners.push(sender);
        receiver
    }

    /// Ends all open watches, of one kind or of all. Clients see their streams end.
    pub fn drop_watches(&self, kind: Option<&GroupKind>) {
        self.inner.store.drop_watches(kind);
    }

    /// Forgets the history, as etcd's compaction does: watches from older versions and page tokens get 410.
    pub fn compact(&self) {
        self.inner.store.compact();
    }

    /// Kills a client right after its n-th successful write from now on, Events not counted; 0 kills it at once.
    ///
    /// The write takes effect, but neither its answer nor the answer to any later request ever arrives, as for a process that is
    /// killed right after an effect. Its open watches are left alone.
    pub fn kill_client_after_writes(&self, user_agent: &str, writes: u64) {
        self.kill(user_agent, writes, false);
    }

    /// Like [`kill_client_after_writes`](Self::kill_client_after_writes), writes of Events counted too.
    pub fn kill_client_after_writes_and_events(&self, user_agent: &str, writes: u64) {
        self.kill(user_agent, writes, true);
    }

    fn kill(&self, user_agent: &str, writes: u64, counts_events: bool) {
        let mut plan = self.inner.plan.lock();
        plan.clients.insert(user_agent.to_owned(), ClientFate { writes_left: writes, counts_events });
        self.rearm(&plan);
        drop(plan);
        if writes == 0 {
            self.inner.killed.notify_waiters();
        }
    }

    /// Whether the client was killed.
    #[must_use]
    pub fn is_killed(&self, user_agent: &str) -> bool {
        self.inner.plan.lock().clients.get(user_agent).is_some_and(|fate| fate.writes_left == 0)
    }

    /// Resolves once the client is killed.
    pub async fn wait_killed(&self, user_agent: &str) {
        loop {
            let notified = self.inner.killed.notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the check, so that a kill in between is not missed.
            notified.as_mut().enable();
            if self.is_killed(user_agent) {
                return;
            }
            notified.await;
        }
    }

    /// Lets a killed client (its next process) be served again. Requests that hang already belong to the dead process and stay so.
    pub fn revive(&self, user_agent: &str) {
        let mut plan = self.inner.plan.lock();
        plan.clients.remove(user_agent);
        self.rearm(&plan);
    }

    fn rearm(&self, plan: &Plan) {
        let armed = !plan.rules.is_empty() || !plan.clients.is_empty();
        self.inner.armed.store(armed, Ordering::Release);
    }

    /// What happens to a request before it is served.
    pub(crate) fn on_request(&self, call: &Call) -> Option<Action> {
        if !self.inner.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut plan = self.inner.plan.lock();
        if plan.clients.get(&call.key.client).is_some_and(|fate| fate.writes_left == 0) {
            return Some(Action::Hang);
        }
        let Plan { random, rules, injected, listeners, .. } = &mut *plan;
        for armed in rules {
            if !armed.rule.matches(call) {
                continue;
            }
            armed.matched += 1;
            if armed.matched < armed.rule.first || armed.hits >= armed.rule.times {
                continue;
            }
            if armed.rule.probability < 1.0 && random.unit() >= armed.rule.probability {
                continue;
            }
            armed.hits += 1;
            *injected += 1;
            listeners.retain(|listener| listener.send(call.clone()).is_ok());
            return Some(armed.rule.action.clone());
        }
        None
    }

    /// Counts a successful write; `true` when the client dies of it.
    pub(crate) fn on_written(&self, call: &Call) -> bool {
        if !self.inner.armed.load(Ordering::Acquire) {
            return false;
        }
        let mut plan = self.inner.plan.lock();
        let Some(fate) = plan.clients.get_mut(&call.key.client) else {
            return false;
        };
        if call.key.resource == "events" && !fate.counts_events {
            return fate.writes_left == 0;
        }
        fate.writes_left = fate.writes_left.saturating_sub(1);
        let dead = fate.writes_left == 0;
        drop(plan);
        if dead {
            self.inner.killed.notify_waiters();
        }
        dead
    }
}
