//! The simulation itself: a cluster, the operator, and what happens by the scenario.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aviary_actors::{Clock, Controller, ControllerConfig, Metrics};
use aviary_crds::validated::TargetKind;
use aviary_sim::Cluster;
use aviary_sim::calls::CallCounts;
use aviary_sim::cluster::ClusterOptions;
use aviary_sim::controllers::{PodBehaviour, PodBehaviours, PodOutcome};
use aviary_sim::faults::RuleId;
use aviary_sim::store::StoreEvent;
use aviary_sim::traffic::{Behaviour, BehaviourMatch, Latency, TrafficOptions, TrafficReport};
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::in_file;
use super::kinds::Kinds;
use super::manifests::Manifests;
use super::network::{Network, Observed};
use super::releases::{Planned, Releases, config_kind};
use super::scenario::{Action, ApiFaultKind, Conduct, Pods, Scenario};
use super::schedule::{self, Step};
use super::subject::Subject;
use super::time::Time;
use super::timeline::{Around, RowKind, Tracked};
use super::{audience, objects, queries, references, services};
use crate::embedded;

/// User agent of the operator; its calls are counted and hit by faults under it.
const OPERATOR: &str = "aviary";
/// User agent of whoever applies manifests and releases.
const USER: &str = "kubectl-simulate";
/// Noon of some day, so that times read well: 2026-01-01T12:00:00Z.
const START: i64 = 1_767_268_800;
/// Requests per second to each canary's service: at the smallest step of the examples, 5 %, a check of one minute sees
/// three hundred.
pub(crate) const USERS: f64 = 100.0;
/// Of an A/B test, this part of the users is among those who are meant.
const MEANT: f64 = 0.2;
/// A bootstrap takes as long as pods take to start; one that is not done after this long waits for something that will
/// not come.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(3600);
/// Time after a verdict in which its last events arrive and the pods of the canary go.
const SETTLING: Duration = Duration::from_secs(5);
/// A canary that nothing happened to for this long after the last deed has nothing to do. Longer than any wait of the
/// operator before it tries something again.
const QUIET: Duration = Duration::from_secs(120);

/// What came of it.
pub(crate) struct Outcome {
    /// In the order of the input.
    pub(crate) tracked: Vec<Tracked>,
    /// Requests of users since the first release, by canary.
    pub(crate) requests: Vec<(TrafficReport, TrafficReport)>,
    /// Calls of the operator since the first release.
    pub(crate) calls: CallCounts,
    pub(crate) observed: Observed,
    pub(crate) time: Time,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
    /// Whether every canary came to rest before the time limit.
    pub(crate) is_complete: bool,
    pub(crate) violations: Vec<String>,
    pub(crate) faults: u64,
}

/// Everything that a simulation is made of.
pub(crate) struct Setup {
    pub(crate) config: ControllerConfig,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) scenario: Arc<Scenario>,
    /// Its name, for messages.
    pub(crate) scenario_file: String,
    pub(crate) releases: Releases,
    pub(crate) seed: u64,
    pub(crate) time_limit: Duration,
}

struct World<'a> {
    setup: &'a Setup,
    cluster: Cluster,
    pods: PodBehaviours,
    user: Client,
    changes: UnboundedReceiver<StoreEvent>,
    time: Time,
    metrics: Metrics,
    tracked: Vec<Tracked>,
    rules: BTreeMap<usize, RuleId>,
    kinds: Kinds,
}

/// What the API server of a cluster refuses of the objects, where it is known already that nothing will be played.
pub(crate) async fn refusals(manifests: &mut Manifests) -> Vec<String> {
    super::complete::namespaces(manifests);
    let cluster = Cluster::new(embedded::cluster_options(1));
    objects::create(&cluster.client(USER), manifests).await.err().unwrap_or_default()
}

/// Plays a simulation.
///
/// # Errors
/// The outer one if the operator cannot be started, the inner one with everything that the API server refuses.
pub(crate) async fn play(setup: &Setup, manifests: &mut Manifests) -> anyhow::Result<Result<Outcome, Vec<String>>> {
    let mut controllers = embedded::controller_options(setup.scenario.requests_per_pod());
    let pods = PodBehaviours::default();
    controllers.behaviours = pods.clone();
    let cluster = Cluster::new(ClusterOptions {
        base_time: Timestamp::from_second(START)?,
        // Every query is answered as by a server that forgets nothing; what was between two changes takes no memory.
        traffic: TrafficOptions { default_load: USERS, history: Duration::MAX, ..TrafficOptions::default() },
        controllers: Some(controllers),
        // Nobody reads the log.
        logged_calls: 0,
        ..embedded::cluster_options(setup.seed)
    });
    let time = Time::new(*cluster.clock());
    let metrics = Metrics::new().context("register metrics")?;
    let user = cluster.client(USER);
    let mut world = World {
        setup,
        pods,
        user: user.clone(),
        changes: cluster.store().subscribe(),
        time: time.clone(),
        metrics: metrics.clone(),
        tracked: setup.subjects.iter().map(|_| Tracked::new()).collect(),
        rules: BTreeMap::new(),
        kinds: Kinds::of(&user).await.context("ask which kinds there are")?,
        cluster: cluster.clone(),
    };
    world.set_versions();
    if let Err(problems) = objects::create(&world.user, manifests).await {
        return Ok(Err(problems));
    }
    // The objects may have brought kinds along.
    world.kinds = Kinds::of(&user).await.context("ask which kinds there are")?;
    let unknown = references::unknown_resources(&setup.scenario, &world.kinds);
    if !unknown.is_empty() {
        return Ok(Err(in_file(&setup.scenario_file, &unknown)));
    }
    world.set_loads();
    world.set_audiences();
    for (index, fault) in setup.scenario.api.iter().enumerate() {
        if fault.from().is_none() {
            world.begin_fault(index);
        }
    }
    let inline = queries::inline(&setup.config, &setup.subjects);
    let network =
        Network::new(cluster.prometheus(), cluster.traffic(), &time, &setup.scenario, &setup.subjects, inline);
    let clock = *cluster.clock();
    let controller = Controller::start(
        setup.config.clone(),
        &cluster.client(OPERATOR),
        Arc::new(network.clone()),
        Clock::from_fn(move || clock.now()),
        metrics,
    );
    let started = clock.now();
    let outcome = world.run(started, &network).await;
    controller.shutdown(SETTLING).await;
    Ok(outcome)
}

impl World<'_> {
    /// # Errors
    /// Actions that are not possible.
    async fn run(mut self, started: Timestamp, network: &Network) -> Result<Outcome, Vec<String>> {
        let limit = Instant::now() + BOOTSTRAP_LIMIT;
        #[expect(clippy::redundant_closure_for_method_calls, reason = "the method's path would name one lifetime only")]
        let is_ready = self.follow(limit, |world| world.are_initialized()).await;
        let mut is_complete = false;
        if is_ready {
            self.follow(Instant::now() + self.setup.scenario.warm_up(), |_| false).await;
            let (scenario, namespace) = (&self.setup.scenario, self.default_namespace());
            let impossible = references::impossible_actions(&self.user, &self.kinds, scenario, namespace).await;
            if !impossible.is_empty() {
                return Err(in_file(&self.setup.scenario_file, &impossible));
            }
        }
        self.time.start();
        let before: Vec<TrafficReport> = self.reports();
        let calls = self.cluster.calls().snapshot();
        if is_ready {
            is_complete = self.release().await;
        }
        let requests = before.into_iter().zip(self.reports()).collect();
        Ok(Outcome {
            requests,
            calls: self.cluster.calls().since(&calls).of_client(OPERATOR),
            observed: network.observed(),
            ended: self.time.now(),
            violations: self.violations(),
            faults: self.cluster.faults().injected(),
            time: self.time,
            tracked: self.tracked,
            started,
            is_complete,
        })
    }

    /// Namespace of what a scenario names without one.
    fn default_namespace(&self) -> &str {
        self.setup.subjects.first().map(Subject::namespace).unwrap_or_default()
    }

    /// Plays the schedule, and waits until nothing is under way. Returns whether that was before the time limit.
    async fn release(&mut self) -> bool {
        let begin = Instant::now();
        let limit = begin + self.setup.time_limit;
        let steps = schedule::schedule(&self.setup.scenario, &self.setup.releases, self.setup.time_limit);
        let last_deed = begin + schedule::last_deed(&steps);
        for (at, step) in steps {
            let at = begin + at;
            // Changes of the surroundings end nothing: when everything is over they need not be waited for.
            let is_over = |world: &World| last_deed < Instant::now() && world.is_settled(last_deed);
            let was_over = self.follow(at.min(limit), is_over).await;
            if was_over {
                return true;
            }
            if at >= limit {
                return false;
            }
            self.take(step).await;
        }
        self.follow(limit, |world| world.is_settled(last_deed)).await
    }

    /// Whether every canary that is there from the beginning is initialized.
    fn are_initialized(&self) -> bool {
        let subjects = self.setup.subjects.iter().zip(&self.tracked);
        subjects.into_iter().all(|(subject, tracked)| subject.is_release_itself() || tracked.is_initialized())
    }

    /// Whether every canary has come to rest after the last deed.
    fn is_settled(&self, last_deed: Instant) -> bool {
        let now = Instant::now();
        self.tracked.iter().all(|one| {
            let has_ended = one.runs.last().is_some_and(|run| run.ended.is_some()) && one.changed >= last_deed;
            let patience = if has_ended || one.is_deleted { SETTLING } else { QUIET };
            one.is_at_rest() && now >= one.changed.max(last_deed) + patience
        })
    }

    /// Takes in changes until a time, or until a condition holds; returns whether it did.
    async fn follow(&mut self, until: Instant, is_done: impl Fn(&World) -> bool) -> bool {
        loop {
            if is_done(self) {
                return true;
            }
            // Conditions depend on the time, too.
            let look_again = (Instant::now() + SETTLING).min(until);
            tokio::select! {
                biased;
                change = self.changes.recv() => match change {
                    Some(change) => self.see(&change),
                    None => return false,
                },
                () = sleep_until(look_again) => {
                    if Instant::now() >= until {
                        return is_done(self);
                    }
                }
            }
        }
    }

    fn see(&mut self, change: &StoreEvent) {
        let around = Around { now: self.time.now(), metrics: Some(&self.metrics), traffic: self.cluster.traffic() };
        for (subject, tracked) in self.setup.subjects.iter().zip(&mut self.tracked) {
            tracked.take(subject, change, &around);
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Versions => self.set_versions(),
            Step::Load => self.set_loads(),
            Step::BeginFault(index) => self.begin_fault(index),
            Step::EndFault(index) => {
                if let Some(rule) = self.rules.remove(&index) {
                    self.cluster.faults().remove(rule);
                }
            }
            Step::DropWatches(_) => self.cluster.faults().drop_watches(None),
            Step::Release(index) => {
                let setup = self.setup;
                let Some(planned) = setup.releases.planned.get(index) else { return };
                let Some(subject) = setup.subjects.get(planned.subject) else { return };
                let text = release(&self.user, subject, planned).await;
                let now = self.time.now();
                if let Some(tracked) = self.tracked.get_mut(planned.subject) {
                    tracked.release(now, text);
                }
            }
            Step::Act(index) => {
                let setup = self.setup;
                let Some(action) = setup.scenario.actions.get(index) else { return };
                let mut text = objects::describe(action);
                // The kind was looked up before.
                let api = objects::api_of(&self.user, &self.kinds, action, self.default_namespace());
                let Some(api) = api else { return };
                match objects::act(&api, action).await {
                    Ok(()) => {}
                    Err(kube::Error::Api(status)) => text = format!("{text}, which is refused: {}", status.message),
                    Err(error) => text = format!("{text}, which fails: {error}"),
                }
                let concerned = concerned(action, &setup.subjects, self.default_namespace());
                self.tell(&concerned, &text);
            }
        }
    }

    /// A row about what a user did, for some canaries.
    fn tell(&mut self, subjects: &[usize], text: &str) {
        let now = self.time.now();
        for (index, tracked) in self.tracked.iter_mut().enumerate() {
            if subjects.contains(&index) {
                tracked.add(RowKind::Action, now, text.to_owned());
            }
        }
    }

    fn begin_fault(&mut self, index: usize) {
        let setup = self.setup;
        let Some(fault) = setup.scenario.api.get(index) else { return };
        let faults = self.cluster.faults();
        if let Some(rule) = schedule::rule(fault, OPERATOR) {
            self.rules.insert(index, faults.add(rule));
        }
        match fault.fault {
            ApiFaultKind::Compact => {
                faults.compact();
                faults.drop_watches(None);
            }
            ApiFaultKind::Restart => faults.drop_watches(None),
            _ => {}
        }
    }

    fn set_loads(&self) {
        let (scenario, subjects) = (&self.setup.scenario, &self.setup.subjects);
        let loads = schedule::loads(scenario, subjects, self.time.since_release(), USERS);
        for ((namespace, service, headers), rate) in loads {
            if headers.is_empty() {
                self.cluster.traffic().set_load(&namespace, &service, rate);
            } else {
                self.cluster.traffic().set_audience_load(&namespace, &service, &headers, rate);
            }
        }
    }

    /// Users who are meant by A/B tests, unless the scenario describes users with headers.
    fn set_audiences(&self) {
        if self.setup.scenario.load.iter().any(|load| !load.headers.is_empty()) {
            return;
        }
        for subject in &self.setup.subjects {
            if let Some(headers) = audience::headers(&subject.canary.analysis.matches) {
                let [apex, _] = subject.hosts();
                self.cluster.traffic().set_audience_load(subject.namespace(), &apex, &headers, USERS * MEANT);
            }
        }
    }

    /// Lets every version behave as the scenario has it at present.
    fn set_versions(&self) {
        let at = self.time.since_release();
        let (scenario, releases) = (&self.setup.scenario, &self.setup.releases);
        for (index, subject) in self.setup.subjects.iter().enumerate() {
            let mut images = [releases.images_of("current", index), releases.images_of("new", index)].concat();
            images.dedup();
            // A short name can be a part of a long one: what is said of the long one comes later, and wins.
            images.sort_by_key(String::len);
            for image in images {
                let keys = scenario.versions.iter().filter(|(key, _)| releases.images_of(key, index).contains(&image));
                let (general, by_tag): (Vec<_>, Vec<_>) =
                    keys.partition(|(key, _)| ["current", "new"].contains(&key.as_str()));
                let versions: Vec<_> = general.into_iter().chain(by_tag).map(|(_, version)| version).collect();
                let conduct = versions.iter().fold(Conduct::default(), |below, version| over(below, version.at(at)));
                let start_delay = versions.iter().rev().find_map(|version| version.startup_delay);
                self.set_pods(
                    &image,
                    conduct.pods,
                    start_delay,
                    versions.iter().any(|version| version.changes.iter().any(|change| change.conduct.pods.is_some())),
                );
                let sides = [("primary", subject.primary_workload()), ("canary", subject.canary_workload())];
                for (side, workload) in sides {
                    let of_side = scenario.versions.get(side).map(|version| version.at(at)).unwrap_or_default();
                    let pods = BehaviourMatch::image(&image).in_namespace(subject.namespace()).of_workload(workload);
                    self.cluster.traffic().set_behaviour(pods, behaviour(over(conduct, of_side)));
                }
            }
        }
    }

    fn set_pods(&self, image: &str, pods: Option<Pods>, start_delay: Option<Duration>, changes: bool) {
        if pods.is_none() && start_delay.is_none() && !changes {
            return;
        }
        let outcome = match pods.unwrap_or(Pods::Ready) {
            Pods::Ready => PodOutcome::Ready,
            Pods::NeverReady => PodOutcome::NeverReady,
            Pods::CrashLoop => PodOutcome::CrashLoop,
            Pods::ImagePullError => PodOutcome::ImagePullError,
        };
        self.pods.set(image, PodBehaviour { start_delay, outcome });
    }

    fn reports(&self) -> Vec<TrafficReport> {
        let report =
            |subject: &Subject| self.cluster.traffic().report(subject.namespace(), subject.canary.service.apex());
        self.setup.subjects.iter().map(report).collect()
    }

    fn violations(&self) -> Vec<String> {
        use prometheus::core::Collector;
        let families = self.metrics.violations.collect();
        let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        series.flat_map(|metric| metric.get_label().iter().map(|label| label.value().to_owned())).collect()
    }
}

/// The canaries whose timelines tell of an action, by position: that of the name, or else all of the namespace, or where it has
/// none all there are.
fn concerned(action: &Action, subjects: &[Subject], default_namespace: &str) -> Vec<usize> {
    let namespace = action.namespace.as_deref().unwrap_or(default_namespace);
    let among = |is_meant: &dyn Fn(&Subject) -> bool| -> Vec<usize> {
        subjects.iter().enumerate().filter(|(_, subject)| is_meant(subject)).map(|(index, _)| index).collect()
    };
    let of_name = among(&|subject| subject.namespace() == namespace && subject.name() == action.name);
    if !of_name.is_empty() {
        return of_name;
    }
    let of_namespace = among(&|subject| subject.namespace() == namespace);
    if of_namespace.is_empty() { among(&|_| true) } else { of_namespace }
}

/// What the second says where it says something, and otherwise the first.
fn over(below: Conduct, above: Conduct) -> Conduct {
    Conduct {
        error_rate: above.error_rate.or(below.error_rate),
        error_code: above.error_code.or(below.error_code),
        latency: above.latency.or(below.latency),
        pods: above.pods.or(below.pods),
    }
}

fn behaviour(conduct: Conduct) -> Behaviour {
    let healthy = Behaviour::default();
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Behaviour {
        error_ratio: conduct.error_rate.unwrap_or(healthy.error_ratio),
        error_code: conduct.error_code.unwrap_or(healthy.error_code),
        latency: conduct.latency.map_or(healthy.latency, |latency| Latency {
            p50_ms: milliseconds(latency.median),
            p99_ms: milliseconds(latency.p99),
        }),
    }
}

/// Changes a target, and says in words how.
async fn release(user: &Client, subject: &Subject, planned: &Planned) -> String {
    let mut texts = Vec::new();
    if let Some(object) = &planned.object {
        let (kind, name) = (subject.kind().to_lowercase(), subject.name());
        texts.push(format!("kubectl apply, {kind}/{name} is created"));
        if let Err(error) = objects::create_release(user, object).await {
            texts.push(error.to_string());
        }
    }
    if let Some(selector) = &planned.selector {
        texts.push(format!("kubectl set selector service/{} {}", subject.target(), services::in_words(selector)));
        let api: Api<DynamicObject> =
            Api::namespaced_with(user.clone(), subject.namespace(), &resource(TargetKind::Service.as_str()));
        let patch = Patch::Merge(json!({"spec": {"selector": selector}}));
        if let Err(error) = api.patch(subject.target(), &PatchParams::default(), &patch).await {
            texts.push(error.to_string());
        }
    }
    if let Some((container, image)) = &planned.image {
        let kind = subject.canary.target.kind.as_str();
        texts.push(format!("kubectl set image {}/{} {container}={image}", kind.to_lowercase(), subject.target()));
        let resource = resource(kind);
        let api: Api<DynamicObject> = Api::namespaced_with(user.clone(), subject.namespace(), &resource);
        let containers = json!([{"name": container, "image": image}]);
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
        if let Err(error) = api.patch(subject.target(), &PatchParams::default(), &patch).await {
            texts.push(error.to_string());
        }
    }
    if let Some(config) = &planned.config {
        let kind = config_kind(config);
        texts.push(format!("{kind} {} changes", config.name));
        let api: Api<DynamicObject> = Api::namespaced_with(user.clone(), subject.namespace(), &resource(kind));
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let data: BTreeMap<&str, Value> = config.data.iter().map(|(key, text)| (key.as_str(), json!(text))).collect();
        let patch = Patch::Merge(json!({ field: data }));
        if let Err(error) = api.patch(&config.name, &PatchParams::default(), &patch).await {
            texts.push(error.to_string());
        }
    }
    texts.join("; ")
}

/// The resource of a target, a ConfigMap or a Secret.
fn resource(kind: &str) -> ApiResource {
    let (group, version) = if ["ConfigMap", "Secret", "Service"].contains(&kind) { ("", "v1") } else { ("apps", "v1") };
    ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind))
}
