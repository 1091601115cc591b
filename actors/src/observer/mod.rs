//! The observer: metric queries, each asked once.
//!
//! Equal queries within a short window share one answer. Built-in checks of many canaries are folded into one grouped
//! query. A backend that does not answer is left alone for a while, and everybody is told so at once: an outage costs
//! neither threads nor time, and judges nobody.

mod breaker;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Supervised};
use aviary_providers::HttpRequest;
use aviary_providers::metrics::{BuiltinMetric, MetricError, Prometheus, ProviderConfig, grouped};
use aviary_rollout::{CheckKind, RoundAnswer};
use futures::future::{BoxFuture, Shared, join_all};
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::checks::{GroupMember, PreparedCheck, Query, QueryAuthor, QuerySource, sample};
use crate::clock::Clock;
use crate::lifetime::Lifetime;
use crate::messages::{EffectOutcome, Measured, ProbeBackends, RoundTook, TakeSamples};
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::transport::{BODY_LIMIT, HttpResponse, NoAnswer, Transport};
use breaker::{Breaker, CircuitKey};

/// An answer serves equal queries for this long. Far below the shortest analysis interval (10 s), so no check round
/// sees the answer of an earlier one.
const SHARE: Duration = Duration::from_secs(1);
/// Built-in checks that come in within this time are asked together. Unnoticeable at an interval of 10 s, and long
/// enough to gather what one watch event or one restart sets off.
const GATHER: Duration = Duration::from_millis(20);
/// Workloads in one grouped query. Their names are in it twice: 25 KB at names of usual length, which Prometheus parses in
/// a millisecond; and what one failing query has to be asked again for stays few.
const GROUP_LIMIT: usize = 100;
/// Members of a failed grouped query that ask for themselves at a time: few enough for a backend that has trouble.
const ALONE_AT_ONCE: usize = 10;
/// Where a backend answers single queries and not their group, it is asked singly for this long: some rounds, and not so many
/// that a hiccup costs much.
const ALONE_FOR: Duration = Duration::from_secs(60);

type Answer = Result<f64, MetricError>;
type SharedAnswer = Shared<BoxFuture<'static, Answer>>;

/// Asks metric backends.
pub(crate) struct Observer {
    asker: Asker,
    recorder: actix::Addr<Recorder>,
    lifetime: Lifetime,
    /// Recent queries, by backend and text.
    recent: HashMap<Arc<str>, SharedAnswer>,
    /// When they were asked, in order: forgetting the old ones must not look at all of them for each new one.
    asked: VecDeque<(Instant, Arc<str>)>,
    /// Members of grouped queries that wait for company.
    gathering: BTreeMap<GroupKey, Gathering>,
}

/// Everything that one grouped query has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct GroupKey {
    address: String,
    metric: BuiltinMetric,
    interval: String,
    tenant: Option<String>,
}

struct Gathering {
    config: ProviderConfig,
    members: Members,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Flush(GroupKey);

impl Observer {
    /// An observer with nothing to do.
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        clock: Clock,
        metrics: Metrics,
        recorder: actix::Addr<Recorder>,
        lifetime: Lifetime,
    ) -> Observer {
        let asker = Asker { transport, clock, metrics, breaker: Breaker::default(), too_heavy: Arc::default() };
        Observer {
            asker,
            recorder,
            lifetime,
            recent: HashMap::new(),
            asked: VecDeque::new(),
            gathering: BTreeMap::new(),
        }
    }

    fn ask(&mut self, query: &Query, context: &mut Context<Self>) -> SharedAnswer {
        let now = Instant::now();
        let share = self.asker.clock.timer(SHARE);
        while let Some((at, key)) = self.asked.front()
            && now.duration_since(*at) >= share
        {
            self.recent.remove(key);
            self.asked.pop_front();
        }
        let key = identity(query);
        if let Some(answer) = self.recent.get(key.as_str()) {
            return answer.clone();
        }
        let answer = match &query.grouped {
            Some(member) => self.gather(query, member, context),
            None => match self.asker.admit(query) {
                // Not shared: an equal query of another namespace may be asked.
                Err(error) => return std::future::ready(Err(error)).boxed().shared(),
                Ok(request) => {
                    let (asker, query) = (self.asker.clone(), query.clone());
                    async move { asker.fetch(request, &query).await }.boxed()
                }
            },
        };
        let answer = answer.shared();
        let key: Arc<str> = key.into();
        self.asked.push_back((now, key.clone()));
        self.recent.insert(key, answer.clone());
        answer
    }

    /// Waits a moment for other canaries with the same kind of question.
    fn gather(
        &mut self,
        query: &Query,
        member: &GroupMember,
        context: &mut Context<Self>,
    ) -> BoxFuture<'static, Answer> {
        let key = GroupKey {
            address: query.config.address.clone(),
            metric: member.metric,
            interval: member.interval.clone(),
            tenant: query.tenant.clone(),
        };
        let (sender, receiver) = oneshot::channel();
        let gathering = self.gathering.entry(key.clone()).or_insert_with(|| {
            context.notify_later(Flush(key.clone()), GATHER);
            Gathering { config: query.config.clone(), members: BTreeMap::new() }
        });
        gathering.members.entry(member.clone()).or_default().push((query.clone(), sender));
        if gathering.members.len() >= GROUP_LIMIT {
            self.flush(&key);
        }
        async move { receiver.await.unwrap_or_else(|_| Err(MetricError::Unavailable("the query was dropped".to_owned()))) }
            .boxed()
    }

    fn flush(&mut self, key: &GroupKey) {
        let Some(Gathering { config, members }) = self.gathering.remove(key) else { return };
        let group = ask_group(self.asker.clone(), config, key.clone(), members);
        self.lifetime.spawn(group);
    }
}

type Members = BTreeMap<GroupMember, Vec<(Query, oneshot::Sender<Answer>)>>;

/// Asks for all members at once, and tells each its part of the answer.
async fn ask_group(asker: Asker, config: ProviderConfig, key: GroupKey, members: Members) {
    // Alone, a check asks exactly the query that Flagger would.
    if members.len() == 1 || asker.is_too_heavy(&key) {
        return ask_alone(&asker, members).await;
    }
    let values = match asker.ask_grouped(&config, &key, members.keys()).await {
        Ok(values) => values,
        Err(GroupError::Refused(reason)) => return tell_all(members, &MetricError::Unavailable(reason)),
        Err(GroupError::Asked(error @ MetricError::Unavailable(_))) => {
            return ask_ends_first(&asker, &key, members, &error).await;
        }
        // It may be one member's fault, or a limit that the group exceeds. Nobody is judged by it.
        Err(GroupError::Asked(error)) => {
            tracing::warn!(members = members.len(), "grouped query failed, asking for each by itself: {error}");
            return ask_alone(&asker, members).await;
        }
    };
    for (member, waiting) in members {
        let value = values.get(&(member.namespace, member.workload));
        let value = value.copied().filter(|value| !value.is_nan()).ok_or(MetricError::NoValues);
        for (_, sender) in waiting {
            let _ = sender.send(value.clone());
        }
    }
}

/// Whether a group failed because the backend is away, or because it is too much for one query, its first and its last member
/// tell. Two of them, because one of a namespace whose queries take long could not.
async fn ask_ends_first(asker: &Asker, key: &GroupKey, mut members: Members, error: &MetricError) {
    let ends = [members.pop_first(), members.pop_last()].into_iter().flatten();
    let answered = join_all(ends.map(|(_, mut waiting)| async move {
        let Some((query, sender)) = waiting.pop() else { return false };
        let answer = asker.ask(&query).await;
        let is_answer = !matches!(answer, Err(MetricError::Unavailable(_)));
        for (_, sender) in waiting {
            let _ = sender.send(answer.clone());
        }
        let _ = sender.send(answer);
        is_answer
    }))
    .await;
    if !answered.contains(&true) {
        return tell_all(members, error);
    }
    tracing::warn!(members = members.len() + answered.len(), "grouped query failed, single ones do not: {error}");
    asker.remember_too_heavy(key);
    ask_alone(asker, members).await;
}

fn tell_all(members: Members, error: &MetricError) {
    for (_, sender) in members.into_values().flatten() {
        let _ = sender.send(Err(error.clone()));
    }
}

async fn ask_alone(asker: &Asker, members: Members) {
    let waiting = futures::stream::iter(members.into_values().flatten());
    waiting
        .for_each_concurrent(ALONE_AT_ONCE, |(query, sender)| async move {
            let _ = sender.send(asker.ask(&query).await);
        })
        .await;
}

/// What makes two queries equal: backend, credentials and text; and who is concerned if the backend fails.
fn identity(query: &Query) -> String {
    let request = query.provider.request(&query.config, &query.text, jiff::Timestamp::UNIX_EPOCH);
    let tenant = query.tenant.as_deref().unwrap_or_default();
    match request {
        Ok(request) => {
            let headers: Vec<String> = request
                .headers
                .iter()
                .map(|(name, value)| format!("{name}:{}", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            format!("{tenant} {} {} {}", query.provider.name(), request.url, headers.join("\n"))
        }
        Err(_) => format!("{tenant} {} {} {}", query.provider.name(), query.config.address, query.text),
    }
}

#[derive(Clone)]
struct Asker {
    transport: Arc<dyn Transport>,
    clock: Clock,
    metrics: Metrics,
    breaker: Breaker,
    /// Groups that the backend does not answer, and when to try the next of their kind.
    too_heavy: Arc<Mutex<HashMap<GroupKey, Instant>>>,
}

/// Why a group has no answer.
enum GroupError {
    /// It was not asked: the circuits of all its members are open.
    Refused(String),
    /// It was.
    Asked(MetricError),
}

impl Asker {
    async fn ask(&self, query: &Query) -> Answer {
        let request = self.admit(query)?;
        self.fetch(request, query).await
    }

    /// The request of a query whose circuit is closed.
    fn admit(&self, query: &Query) -> Result<HttpRequest, MetricError> {
        let request = query.provider.request(&query.config, &query.text, self.clock.now())?;
        match self.breaker.refusal(&[circuit(&request, query)]) {
            None => Ok(request),
            Some(reason) => Err(MetricError::Unavailable(reason)),
        }
    }

    async fn fetch(&self, request: HttpRequest, query: &Query) -> Answer {
        let concerned = vec![circuit(&request, query)];
        let response = self.send(request, concerned).await?;
        query.provider.parse(response.status, &response.body)
    }

    fn is_too_heavy(&self, key: &GroupKey) -> bool {
        let too_heavy = self.too_heavy.lock().unwrap_or_else(PoisonError::into_inner);
        too_heavy.get(key).is_some_and(|until| Instant::now() < *until)
    }

    fn remember_too_heavy(&self, key: &GroupKey) {
        let now = Instant::now();
        let mut too_heavy = self.too_heavy.lock().unwrap_or_else(PoisonError::into_inner);
        too_heavy.retain(|_, until| now < *until);
        too_heavy.insert(key.clone(), now + ALONE_FOR);
    }

    async fn ask_grouped(
        &self,
        config: &ProviderConfig,
        key: &GroupKey,
        members: impl Iterator<Item = &GroupMember>,
    ) -> Result<BTreeMap<(String, String), f64>, GroupError> {
        let members: Vec<(&str, &str)> =
            members.map(|member| (member.namespace.as_str(), member.workload.as_str())).collect();
        let text = grouped::grouped_builtin(key.metric, &members, &key.interval);
        let request = Prometheus.form_request(config, &text).map_err(GroupError::Asked)?;
        let namespaces: BTreeSet<&str> = members.iter().map(|(namespace, _)| *namespace).collect();
        let concerned = namespaces.into_iter().map(|namespace| CircuitKey {
            origin: request.origin(),
            is_chosen: key.tenant.is_some(),
            source: QuerySource { namespace: namespace.to_owned(), author: QueryAuthor::Controller },
        });
        let concerned: Vec<CircuitKey> = concerned.collect();
        if let Some(reason) = self.breaker.refusal(&concerned) {
            return Err(GroupError::Refused(reason));
        }
        let response = self.send(request, concerned).await.map_err(GroupError::Asked)?;
        grouped::parse_grouped(response.status, &response.body).map_err(GroupError::Asked)
    }

    async fn probe(&self, query: &Query) -> Result<(), MetricError> {
        let request = query.provider.probe(&query.config, self.clock.now())?;
        let concerned = vec![circuit(&request, query)];
        if let Some(reason) = self.breaker.refusal(&concerned) {
            return Err(MetricError::Unavailable(reason));
        }
        let response = self.send(request, concerned).await?;
        query.provider.check_probe(response.status, &response.body)
    }

    async fn send(&self, request: HttpRequest, concerned: Vec<CircuitKey>) -> Result<HttpResponse, MetricError> {
        let backend = request.origin();
        let started = Instant::now();
        let limit = request.timeout;
        let answer = match tokio::time::timeout(limit, self.transport.send(request)).await {
            // What is missing is not known to be missing: half an answer would be taken for a whole one.
            Ok(Ok(response)) if response.body.len() >= BODY_LIMIT => {
                Err(NoAnswer(format!("the answer is longer than {} MiB", BODY_LIMIT >> 20)))
            }
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer(format!("no answer within {limit:?}"))),
        };
        self.metrics.query_duration.with_label_values(&[backend.as_str()]).observe(started.elapsed().as_secs_f64());
        let result = match &answer {
            Ok(response) if response.status < 400 => "success",
            Ok(_) => "error",
            Err(_) => "no_answer",
        };
        self.metrics.queries.with_label_values(&[backend.as_str(), result]).inc();
        let error = match &answer {
            Ok(response) if response.status >= 500 || response.status == 429 => {
                Some(format!("error response {}", response.status))
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        self.breaker.record(concerned, error.as_deref());
        answer.map_err(|error| MetricError::Unavailable(error.to_string()))
    }
}

fn circuit(request: &HttpRequest, query: &Query) -> CircuitKey {
    CircuitKey { origin: request.origin(), is_chosen: query.tenant.is_some(), source: query.source.clone() }
}

impl Actor for Observer {
    type Context = Context<Self>;
}

impl Supervised for Observer {
    /// The timers of the former life are gone. Whoever waited for one of them hears that there is no answer.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.gathering.clear();
    }
}

impl Handler<Flush> for Observer {
    type Result = ();

    fn handle(&mut self, Flush(key): Flush, _: &mut Context<Self>) {
        self.flush(&key);
    }
}

impl Handler<TakeSamples> for Observer {
    type Result = ();

    fn handle(&mut self, order: TakeSamples, context: &mut Context<Self>) {
        let TakeSamples { canary, checks, hooks, reply } = order;
        let asked: Vec<(PreparedCheck, Option<SharedAnswer>)> = checks
            .into_iter()
            .map(|check| {
                let answer = check.query.as_ref().ok().map(|query| self.ask(query, context));
                (check, answer)
            })
            .collect();
        let recorder = self.recorder.clone();
        let started = Instant::now();
        self.lifetime.spawn(async move {
            let samples = join_all(asked.into_iter().map(|(check, answer)| {
                let (recorder, canary) = (recorder.clone(), canary.clone());
                async move {
                    let Some(answer) = answer else {
                        return Err(aviary_rollout::SampleError::Broken(check.query.err().unwrap_or_default()));
                    };
                    let answer = answer.await;
                    if let Ok(value) = &answer {
                        let value = if check.kind == CheckKind::Duration { value / 1000.0 } else { *value };
                        recorder.do_send(Measured { canary, metric: check.name.clone(), value });
                    }
                    sample(&check, answer)
                }
            }))
            .await;
            recorder.do_send(RoundTook { canary, seconds: started.elapsed().as_secs_f64() });
            reply.send(EffectOutcome::Round(RoundAnswer { hooks, samples }));
        });
    }
}

impl Handler<ProbeBackends> for Observer {
    type Result = ();

    fn handle(&mut self, order: ProbeBackends, _: &mut Context<Self>) {
        let asker = self.asker.clone();
        self.lifetime.spawn(async move {
            let mut result = Ok(());
            for check in &order.checks {
                result = match &check.query {
                    // Flagger does not probe the server of inline queries.
                    Ok(_) if check.kind == CheckKind::Query => Ok(()),
                    Ok(query) => asker.probe(query).await.map_err(|error| format!("{}: {error}", check.name)),
                    Err(text) => Err(text.clone()),
                };
                if result.is_err() {
                    break;
                }
            }
            order.reply.send(EffectOutcome::Providers(result));
        });
    }
}

#[cfg(test)]
mod tests;
