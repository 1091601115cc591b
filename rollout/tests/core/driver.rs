//! Drives the core over the model: decide, check the invariants, execute effects one by one, wait as told.

use std::time::Duration;

use aviary_crds::status::{CanaryStatus, Phase};
use aviary_crds::validated::WebhookType;
use aviary_rollout::{
    AlertFacts, Answer, Answers, Check, CheckKind, Component, Decision, Effect, Hold, Hook, HookAnswer, Limit, Message,
    Notice, Occasion, OnFailure, OutagePolicy, Plan, Question, RoundAnswer, Snapshot, Split, State, Strategy, Wake,
    Weights, decide, invariants, providers_message,
};
use jiff::{SignedDuration, Timestamp};

use crate::world::{Configs, Metrics, Rejected, Side, World, seconds};

/// More decisions than this at one instant is a livelock. The longest honest chain is a bootstrap or a step with all
/// hook types, about a dozen.
const MAX_DECISIONS_AT_ONCE: usize = 60;

/// Seconds for which pods are kept after users were routed away from them.
pub(crate) const SETTLE: i64 = 2;
/// How long a mesh may take to hear of pods, in seconds.
pub(crate) const REACH: i64 = 1;

/// Something that happens to the world.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Revision(String),
    Configs(String),
    Crash(Side),
    Recover(Side),
    ForeignWeight(u32),
    /// Somebody turns mirroring on or off.
    ForeignMirroring(bool),
    DeletePrimary,
    DeleteRoutes,
    DeleteTarget,
    /// The canary object itself.
    DeleteCanary,
    Suspend(bool),
    /// Somebody pauses the target's autoscaler, or lets it go on.
    PauseScaler(bool),
    Plan(Box<Plan>),
    /// Not seen by any watch.
    Metrics(Metrics),
    /// Not seen by any watch.
    Refuse(WebhookType, bool),
    /// The process is killed and comes back.
    Kill,
}

impl Event {
    fn is_silent(&self) -> bool {
        matches!(self, Event::Metrics(_) | Event::Refuse(..))
    }
}

pub(crate) fn plan() -> Plan {
    Plan {
        canary: "podinfo".into(),
        namespace: "default".into(),
        dialect: aviary_crds::v1alpha1::Dialect::V1Beta1,
        target_kind: "Deployment".into(),
        target: "podinfo".into(),
        primary: "podinfo-primary".into(),
        is_made_by_user: false,
        canary_uid: "uid".into(),
        suspended: false,
        skip_analysis: false,
        revert_on_deletion: false,
        sessions: None,
        strategy: Strategy::weighted(Weights::Linear { step: 10, max: 50 }),
        interval: Duration::from_secs(10),
        threshold: 3,
        on_failure: OnFailure::RollBack,
        uses_subsets: false,
        deletes_on_success: false,
        step_weight_promotion: 0,
        checks: vec![Check {
            name: "request-success-rate".into(),
            index: 0,
            kind: CheckKind::SuccessRate,
            limit: Limit::Threshold(99.0),
            window: Duration::from_secs(30),
        }],
        hooks: Vec::new(),
        outage: OutagePolicy::Hold { limit: Duration::from_secs(60) },
        traffic_settle_time: Duration::from_secs(SETTLE.unsigned_abs()),
        endpoints_settle_time: Duration::from_secs(REACH.unsigned_abs()),
        alert_facts: AlertFacts { cluster: None, fields: Vec::new() },
    }
}

/// Hooks of these types, named `<type>-webhook`.
pub(crate) fn with_hooks(mut plan: Plan, kinds: &[WebhookType]) -> Plan {
    plan.hooks = kinds.iter().map(|kind| Hook { name: hook_name(*kind), kind: *kind, mute_alert: false }).collect();
    plan
}

fn hook_name(kind: WebhookType) -> String {
    format!("{kind:?}-webhook")
}

/// What must be equal, however the end was reached.
#[derive(Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) phase: Phase,
    weight: i64,
    failed_checks: i64,
    applied: Option<String>,
    promoted: Option<String>,
    tracked: Option<Configs>,
    condition: Option<(String, String)>,
    target: Option<(String, Configs, u32)>,
    primary: Option<(String, Configs, u32)>,
    pub(crate) routes: Option<Split>,
    scaler_paused: Option<bool>,
}

#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    pub(crate) events: Vec<String>,
    pub(crate) alerts: Vec<String>,
    /// What each alert is about, and its id.
    pub(crate) alert_ids: Vec<(Occasion, String)>,
    pub(crate) effects: Vec<Effect>,
    /// Phase and weight after each status write.
    pub(crate) phases: Vec<(Phase, u32)>,
    /// Time of each event.
    pub(crate) times: Vec<Timestamp>,
    /// Calls of each hook type.
    pub(crate) calls: Vec<WebhookType>,
    pub(crate) latency: SignedDuration,
    /// What happens when this many effects were executed, wherever in a step that is.
    pub(crate) interrupt: Option<(usize, Vec<Event>)>,
    /// A new pod template that arrives between the decision to promote and the write.
    pub(crate) edit_before_promotion: Option<String>,
    script: Vec<(Timestamp, Event)>,
    state: State,
    answers: Answers,
    hold: Option<(Hold, Timestamp, bool)>,
    decisions_at_once: usize,
    start: Timestamp,
}

impl Run {
    pub(crate) fn new(plan: Plan, world: World) -> Run {
        let start = world.now;
        Run {
            world,
            plan,
            events: Vec::new(),
            alerts: Vec::new(),
            alert_ids: Vec::new(),
            effects: Vec::new(),
            phases: Vec::new(),
            times: Vec::new(),
            calls: Vec::new(),
            latency: SignedDuration::ZERO,
            interrupt: None,
            edit_before_promotion: None,
            script: Vec::new(),
            state: State::default(),
            answers: Answers::default(),
            hold: None,
            decisions_at_once: 0,
            start,
        }
    }

    /// A canary that has been bootstrapped, with a clean record.
    pub(crate) fn initialized(plan: Plan) -> Run {
        let mut run = Run::new(plan, World::new("a"));
        run.settle();
        assert_eq!(run.state.phase, Phase::Initialized);
        run.forget();
        run
    }

    /// Clears the record; the clock of the script starts again.
    pub(crate) fn forget(&mut self) {
        self.events.clear();
        self.alerts.clear();
        self.alert_ids.clear();
        self.effects.clear();
        self.phases.clear();
        self.times.clear();
        self.calls.clear();
        self.start = self.world.now;
    }

    /// Something that will happen `after` seconds.
    pub(crate) fn at(mut self, after: i64, event: Event) -> Run {
        self.script.push((self.start + seconds(after), event));
        self.script.sort_by_key(|(at, _)| *at);
        self
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.world.snapshot(&self.plan, &self.answers)
    }

    /// The text of the present hold.
    pub(crate) fn held(&self) -> Option<String> {
        self.hold.as_ref().map(|(hold, ..)| hold.message.to_string())
    }

    pub(crate) fn ending(&self) -> Ending {
        let status = &self.world.status;
        let condition = status.conditions.iter().find(|condition| condition.condition_type == "Promoted");
        let mut target = self.world.target.clone();
        if let Some(target) = &mut target {
            target.replicas = target.replicas.min(1);
        }
        let view = |workload: &crate::world::Workload| {
            (workload.revision.clone(), workload.configs.clone(), workload.replicas)
        };
        Ending {
            phase: status.phase,
            weight: status.canary_weight,
            failed_checks: status.failed_checks,
            applied: status.last_applied_spec.clone(),
            promoted: status.last_promoted_spec.clone(),
            tracked: status.tracked_configs.clone(),
            condition: condition.map(|condition| (condition.status.clone(), condition.reason.clone())),
            target: target.as_ref().map(view),
            primary: self.world.primary.as_ref().map(view),
            routes: self.world.routes,
            scaler_paused: self.world.scaler_paused,
        }
    }

    /// Runs until nothing will happen any more; fails after a virtual day.
    pub(crate) fn settle(&mut self) {
        let limit = self.world.now + SignedDuration::from_hours(24);
        self.run_until(limit);
        assert!(self.world.now < limit, "not settled: {:?}, held: {:?}", self.ending(), self.held());
    }

    /// Runs until then, or until nothing will happen any more.
    pub(crate) fn run_until(&mut self, limit: Timestamp) {
        loop {
            self.happen();
            if self.world.gone {
                return;
            }
            let decision = self.decide();
            if !decision.effects.is_empty() {
                self.decisions_at_once += 1;
                assert!(
                    self.decisions_at_once < MAX_DECISIONS_AT_ONCE,
                    "livelock in {:?}, last: {decision:?}, found {:?}",
                    self.state,
                    self.snapshot()
                );
                self.execute(decision);
                continue;
            }
            self.begin_hold(decision.hold.clone());
            let Some(next) = self.next_time(&decision) else {
                self.announce(limit);
                return;
            };
            self.announce(next.min(limit));
            if next > limit {
                self.world.now = limit;
                return;
            }
            self.advance_to(next);
        }
    }

    fn decide(&self) -> Decision {
        let mut plan = self.plan.clone();
        plan.suspended = self.world.suspended;
        let seen = self.snapshot();
        let decision = decide(&plan, &self.state, &seen);
        let broken = invariants::violations(&self.plan, &self.state, &seen, &decision);
        assert!(broken.is_empty(), "{broken:?}\nstate {:?}\nseen {seen:?}\ndecision {decision:?}", self.state);
        decision
    }

    fn next_time(&self, decision: &Decision) -> Option<Timestamp> {
        let wake = match decision.wake {
            Wake::At(at) => Some(at),
            Wake::OnChange => None,
        };
        let loud = self.script.iter().find(|(_, event)| !event.is_silent()).map(|(at, _)| *at);
        [wake, self.world.next_change(), loud].into_iter().flatten().min()
    }

    fn advance_to(&mut self, time: Timestamp) {
        if time > self.world.now {
            self.decisions_at_once = 0;
            self.world.now = time;
        }
    }

    /// What is due by now.
    fn happen(&mut self) {
        while self.script.first().is_some_and(|(at, _)| *at <= self.world.now) {
            let (_, event) = self.script.remove(0);
            self.apply(event);
        }
    }

    /// Whatever is left of the script happens now.
    pub(crate) fn end_script(&mut self) {
        for (_, event) in std::mem::take(&mut self.script) {
            self.apply(event);
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Revision(revision) => self.world.edit(Some(&revision), None),
            Event::Configs(version) => self.world.edit(None, Some(&version)),
            Event::Crash(side) => self.world.crash(side),
            Event::Recover(side) => self.world.recover(side),
            Event::ForeignWeight(weight) => {
                if let Some(routes) = &mut self.world.routes {
                    *routes = Split::to_canary(weight);
                }
                self.world.routed_since = self.world.now;
            }
            Event::ForeignMirroring(mirrored) => {
                if let Some(routes) = &mut self.world.routes {
                    routes.mirrored = mirrored;
                }
                self.world.routed_since = self.world.now;
            }
            Event::DeletePrimary => self.world.primary = None,
            Event::DeleteRoutes => {
                self.world.routes = None;
                self.world.routed_since = self.world.now;
            }
            Event::DeleteTarget => self.world.target = None,
            Event::DeleteCanary => {
                self.world.deleting = true;
                self.world.gone |= !self.world.has_finalizer;
            }
            Event::Suspend(suspended) => self.world.suspended = suspended,
            Event::PauseScaler(paused) => {
                self.world.pause_scaler(paused);
                self.world.autoscale();
            }
            Event::Plan(plan) => self.plan = *plan,
            Event::Metrics(metrics) => self.world.metrics = metrics,
            Event::Refuse(kind, true) => drop(self.world.refusing.insert(kind)),
            Event::Refuse(kind, false) => drop(self.world.refusing.remove(&kind)),
            Event::Kill => self.kill(),
        }
    }

    /// All memory is lost but the status.
    fn kill(&mut self) {
        self.answers = Answers::default();
        self.state = State::from_status(&self.world.status);
        self.hold = None;
        self.world.routed_since = self.world.now;
    }

    fn execute(&mut self, decision: Decision) {
        for effect in decision.effects {
            self.effects.push(effect.clone());
            if self.perform(effect, &decision.next).is_err() {
                return;
            }
            self.world.autoscale();
            let Some((_, events)) = self.interrupt.take_if(|(count, _)| *count == self.effects.len()) else { continue };
            let killed = events.contains(&Event::Kill);
            for event in events {
                self.apply(event);
            }
            if killed {
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect, next: &State) -> Result<(), Rejected> {
        match effect {
            Effect::Apply(component) => {
                self.world.apply(component)?;
                if component == Component::Primary {
                    self.expect_analysed_revision();
                }
            }
            Effect::SetFinalizer(wanted) => {
                self.world.has_finalizer = wanted;
                self.world.gone = self.world.deleting && !wanted;
            }
            Effect::Revert(reverted) => self.world.revert(reverted),
            Effect::DeleteObject => self.world.gone = true,
            Effect::SetTraffic(split) => self.world.set_traffic(split)?,
            Effect::ScaleTarget(scale) => self.world.scale(scale)?,
            Effect::PauseScaler(paused) => self.world.pause_scaler(paused),
            Effect::Promote { revision, configs } => {
                if let Some(edit) = self.edit_before_promotion.take() {
                    self.world.edit(Some(&edit), None);
                }
                self.world.promote(&revision, configs.as_ref())?;
                self.expect_analysed();
            }
            Effect::Ask(question) => self.answer(question),
            Effect::CallHooks(kind) => {
                let answers = self.call(kind);
                for answer in answers.iter().filter(|answer| answer.result.is_ok()) {
                    self.tell(&Message::HookPassed { kind, hook: answer.name.clone() });
                }
            }
            Effect::Emit(message) => self.tell(&message),
            Effect::Alert(notice) => self.alert(notice),
            Effect::Count(_) => {}
            Effect::WriteStatus => self.store(next),
        }
        Ok(())
    }

    /// Nothing unanalysed reaches the primary, except at bootstrap or where the user said so.
    fn expect_analysed(&mut self) {
        let Some(primary) = &self.world.primary else { return };
        let content = (primary.revision.clone(), primary.configs.clone());
        if self.state.phase == Phase::Initializing || self.plan.skip_analysis {
            self.world.analysed.insert(content);
            return;
        }
        assert!(self.world.analysed.contains(&content), "{content:?} was not analysed");
    }

    /// A primary that was deleted is made again from a revision that was analysed. Its configs are known only if no
    /// other revision failed since.
    fn expect_analysed_revision(&mut self) {
        if self.state.phase == Phase::Initializing || self.state.last_applied == self.state.last_promoted {
            return self.expect_analysed();
        }
        let Some(primary) = &self.world.primary else { return };
        let content = (primary.revision.clone(), primary.configs.clone());
        assert!(self.world.analysed.iter().any(|(revision, _)| *revision == content.0), "{content:?} was not analysed");
        self.world.analysed.insert(content);
    }

    fn store(&mut self, next: &State) {
        let status = next.to_status(&self.world.status, "Deployment", Some(1));
        let stored: CanaryStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        self.state = State::from_status(&stored);
        self.world.status = stored;
        self.answers = Answers::default();
        self.hold = None;
        self.phases.push((self.state.phase, self.state.canary_weight));
    }

    fn answer(&mut self, question: Question) {
        self.world.now += self.latency;
        let at = self.world.now;
        match question {
            Question::Providers => {
                let value = match self.world.metrics {
                    Metrics::Outage => Err("connection refused".to_owned()),
                    _ => Ok(()),
                };
                self.tell(&providers_message(&value));
                self.answers.providers = Some(Answer { at, value });
            }
            Question::Round => {
                let hooks = self.call(WebhookType::Rollout);
                let has_load = matches!(self.plan.strategy, Strategy::BlueGreen(_));
                let samples = match hooks.iter().any(|hook| hook.result.is_err()) {
                    true => Vec::new(),
                    false => self.plan.checks.clone().iter().map(|_| self.world.sample(has_load)).collect(),
                };
                self.answers.round = Some(Answer { at, value: RoundAnswer { hooks, samples } });
            }
            Question::Hooks(kind) => {
                let value = self.call(kind);
                self.answers.hooks.insert(kind, Answer { at, value });
            }
            Question::Workloads => self.answers.workloads = Some(Answer { at, value: () }),
        }
    }

    fn call(&mut self, kind: WebhookType) -> Vec<HookAnswer> {
        if !self.plan.has_hooks(kind) {
            return Vec::new();
        }
        self.calls.push(kind);
        let result = if self.world.refusing.contains(&kind) { Err("no".to_owned()) } else { Ok(()) };
        vec![HookAnswer { name: hook_name(kind), result }]
    }

    fn alert(&mut self, notice: Notice) {
        self.alert_ids.push((notice.occasion, notice.id(&self.plan, &self.state)));
        self.alerts.push(notice.text);
    }

    fn tell(&mut self, message: &Message) {
        self.events.push(message.to_string());
        self.times.push(self.world.now);
    }

    /// Holds of one kind without a status write between them are one episode.
    fn begin_hold(&mut self, hold: Option<Hold>) {
        self.hold = match (self.hold.take(), hold) {
            (_, None) => None,
            (Some((before, since, told)), Some(hold))
                if before.kind == hold.kind && before.alert.is_some() == hold.alert.is_some() =>
            {
                Some((hold, since, told))
            }
            (_, Some(hold)) => Some((hold, self.world.now, false)),
        };
    }

    /// Tells of a hold that lasts until then.
    fn announce(&mut self, until: Timestamp) {
        let Some((hold, since, told)) = self.hold.clone() else { return };
        let Ok(patience) = SignedDuration::try_from(hold.announce_after) else { return };
        let due = since.checked_add(patience).unwrap_or(Timestamp::MAX);
        if told || due > until {
            return;
        }
        self.tell(&hold.message);
        if let Some(notice) = hold.alert {
            self.alert(notice);
        }
        if let Some((_, _, told)) = &mut self.hold {
            *told = true;
        }
    }

    /// Seconds from the start of the record to the first event that starts like this.
    pub(crate) fn seconds_to(&self, start: &str) -> i64 {
        let position = self.events.iter().position(|event| event.starts_with(start));
        let position = position.unwrap_or_else(|| panic!("no event {start:?} in {:#?}", self.events));
        self.times[position].duration_since(self.start).as_secs()
    }
}
