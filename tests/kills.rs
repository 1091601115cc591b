//! The controller is killed after each of its writes, and the cluster ends as if it had not been.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::calls::CallCounts;
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use serde_json::{Value, json};

use crate::support::checks::{Watchman, assert_same_end, final_state};
use crate::support::{AGENT, World, canary, daemon_set, deployment, in_virtual_time, iterations, service};

/// What happens to a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scenario {
    /// A release, with this `stepWeightPromotion`.
    Good(u32),
    /// A release of a changed ConfigMap and Secret.
    Configs,
    /// A release with `skipAnalysis`.
    Skipped,
    /// A release of a target with an autoscaler.
    Autoscaled,
    /// A release of a target with an autoscaler of KEDA's, which scales from zero.
    ScaledByKeda,
    /// The same, rolled back.
    BadScaledByKeda,
    /// The same, deleted in the middle, with everything given back.
    RevertedScaledByKeda,
    /// A release that fails its checks.
    Bad,
    /// A new canary.
    Bootstrap,
    /// A release that is overtaken by the next one.
    Restarted,
    /// A release whose pods never become ready.
    Unready,
    /// An A/B test.
    AbTest,
    /// Blue/green, judged by copies of the requests.
    BlueGreen,
    /// A weighted release that begins with copies of the requests.
    Mirrored,
    /// A weighted release that keeps clients on their side.
    Sticky,
    /// A deletion in the middle of a release, with everything given back.
    Reverted,
    /// Blue/green without a mesh.
    WithoutMesh,
    /// A release of a DaemonSet.
    DaemonSet,
    /// A release of a DaemonSet that fails its checks.
    BadDaemonSet,
    /// A deletion in the middle of a DaemonSet's release, with everything given back.
    RevertedDaemonSet,
    /// A release of a Service: it selects other pods.
    Service,
}

impl Scenario {
    /// Whether the release is meant to fail users.
    fn is_bad(self) -> bool {
        matches!(self, Scenario::Bad | Scenario::BadDaemonSet | Scenario::BadScaledByKeda)
    }
}

/// When the controller dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deaths {
    Never,
    /// Once, right after its n-th write.
    After(u64),
    /// Each time right after its first write.
    Always,
}

/// One run of a scenario, over the lives of the controller.
struct Run {
    world: World,
    watchman: Watchman,
    deaths: Deaths,
    killed: u64,
    before: CallCounts,
}

/// How a run ended.
struct End {
    cluster: BTreeMap<String, String>,
    writes: u64,
    killed: u64,
}

impl Run {
    async fn of(scenario: Scenario, deaths: Deaths) -> End {
        let world = World::new(11);
        world.load_heavily();
        let watchman = Watchman::new(&world.cluster);
        let before = world.cluster.calls().snapshot();
        let mut run = Run { world, watchman, deaths, killed: 0, before };
        run.prepare(scenario).await;
        if scenario == Scenario::Bootstrap {
            run.arm();
        }
        run.world.start();
        run.until("it is initialized", |world| world.phase("podinfo") == "Initialized").await;
        if scenario != Scenario::Bootstrap {
            run.world.pass(Duration::from_secs(120)).await;
            run.arm();
            run.release(scenario).await;
        }
        run.settle().await;
        run.end(scenario)
    }

    async fn prepare(&self, scenario: Scenario) {
        let world = &self.world;
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        let mut canary = canary("test", "podinfo");
        match scenario {
            Scenario::Good(step) => canary["spec"]["analysis"]["stepWeightPromotion"] = json!(step),
            Scenario::Skipped => canary["spec"]["skipAnalysis"] = json!(true),
            Scenario::Configs => {
                world.create(config("ConfigMap", "settings", "data", "old")).await;
                world.create(config("Secret", "credentials", "stringData", "old")).await;
                target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
                    json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "credentials"}}]);
            }
            Scenario::Autoscaled => {
                world.create(autoscaler()).await;
                canary["spec"]["autoscalerRef"] =
                    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
            }
            Scenario::ScaledByKeda | Scenario::BadScaledByKeda | Scenario::RevertedScaledByKeda => {
                world.create(scaled_object()).await;
                canary["spec"]["autoscalerRef"] =
                    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
                if scenario == Scenario::RevertedScaledByKeda {
                    canary["spec"]["revertOnDeletion"] = json!(true);
                    world.create(service("test", "podinfo", "podinfo")).await;
                }
            }
            Scenario::AbTest => {
                iterations(&mut canary, 2);
                canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
                let headers = BTreeMap::from([("x-user".to_owned(), "insider".to_owned())]);
                world.traffic.set_audience_load("test", "podinfo", &headers, 2000.0);
            }
            Scenario::BlueGreen => {
                iterations(&mut canary, 2);
                canary["spec"]["analysis"]["mirror"] = json!(true);
            }
            Scenario::Mirrored => canary["spec"]["analysis"]["mirror"] = json!(true),
            Scenario::Sticky => {
                canary["spec"]["analysis"]["sessionAffinity"] =
                    json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck"});
            }
            Scenario::Reverted => {
                canary["spec"]["revertOnDeletion"] = json!(true);
                // It stays when the canary goes, and users with it.
                world.create(service("test", "podinfo", "podinfo")).await;
            }
            Scenario::WithoutMesh => {
                iterations(&mut canary, 2);
                canary["spec"]["provider"] = json!("kubernetes");
                world.traffic.set_load("test", "podinfo-canary", 2000.0);
            }
            Scenario::DaemonSet | Scenario::BadDaemonSet | Scenario::RevertedDaemonSet => {
                target = daemon_set("test", "podinfo", "podinfo:6.0.0");
                canary["spec"]["targetRef"]["kind"] = json!("DaemonSet");
                if scenario == Scenario::RevertedDaemonSet {
                    canary["spec"]["revertOnDeletion"] = json!(true);
                    world.create(service("test", "podinfo", "podinfo")).await;
                }
            }
            Scenario::Service => {
                for version in ["v1", "v2"] {
                    let name = format!("podinfo-{version}");
                    world.create(deployment("test", &name, "podinfo:6.0.0")).await;
                }
                world.pass(Duration::from_secs(30)).await;
                target = service("test", "podinfo", "podinfo-v1");
                canary["spec"]["targetRef"] = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
                // The workloads have other names.
                canary["spec"]["analysis"]["metrics"] = json!([]);
            }
            Scenario::Bad | Scenario::Bootstrap | Scenario::Restarted | Scenario::Unready => {}
        }
        world.create(target).await;
        world.create(canary).await;
    }

    async fn release(&mut self, scenario: Scenario) {
        let phase_is = |phase: &'static str| move |world: &World| world.phase("podinfo") == phase;
        match scenario {
            Scenario::Bootstrap => {}
            Scenario::Good(_)
            | Scenario::Skipped
            | Scenario::Autoscaled
            | Scenario::ScaledByKeda
            | Scenario::AbTest
            | Scenario::BlueGreen
            | Scenario::Mirrored
            | Scenario::WithoutMesh
            | Scenario::Sticky => {
                if scenario == Scenario::Autoscaled {
                    self.world
                        .change(&kinds::HPA, "podinfo", |autoscaler| autoscaler["spec"]["maxReplicas"] = json!(7));
                }
                if scenario == Scenario::ScaledByKeda {
                    self.world.change(&kinds::SCALED_OBJECT, "podinfo-so", |scaler| {
                        scaler["spec"]["maxReplicaCount"] = json!(7);
                    });
                }
                self.world.set_image("podinfo", "podinfo:6.0.1");
                self.until("it is promoted", phase_is("Succeeded")).await;
            }
            Scenario::Reverted | Scenario::RevertedScaledByKeda => {
                self.world.set_image("podinfo", "podinfo:6.0.1");
                self.until("it is half-way", |world| world.status("podinfo")["canaryWeight"] == 20).await;
                self.world.delete(&kinds::CANARY, "podinfo").await;
                self.until("it is gone", |world| world.get(&kinds::CANARY, "podinfo").is_none()).await;
            }
            Scenario::DaemonSet => {
                self.world.set_image_of(&kinds::DAEMON_SET, "podinfo", "podinfo:6.0.1");
                self.until("it is promoted", phase_is("Succeeded")).await;
            }
            Scenario::BadDaemonSet => {
                self.world.set_image_of(&kinds::DAEMON_SET, "podinfo", "podinfo:6.0.2");
                self.until("it is rolled back", phase_is("Failed")).await;
            }
            Scenario::RevertedDaemonSet => {
                self.world.set_image_of(&kinds::DAEMON_SET, "podinfo", "podinfo:6.0.1");
                self.until("it is half-way", |world| world.status("podinfo")["canaryWeight"] == 20).await;
                self.world.delete(&kinds::CANARY, "podinfo").await;
                self.until("it is gone", |world| world.get(&kinds::CANARY, "podinfo").is_none()).await;
            }
            Scenario::Service => {
                self.world.change(&kinds::SERVICE, "podinfo", |service| {
                    service["spec"]["selector"]["app"] = json!("podinfo-v2");
                });
                self.until("it is promoted", phase_is("Succeeded")).await;
            }
            Scenario::Configs => {
                let new = |object: &mut Value| object["data"]["key"] = json!("bmV3");
                self.world.change(&kinds::CONFIG_MAP, "settings", new);
                self.world.change(&kinds::SECRET, "credentials", new);
                self.until("it is promoted", phase_is("Succeeded")).await;
            }
            Scenario::Bad | Scenario::BadScaledByKeda => {
                self.world.set_image("podinfo", "podinfo:6.0.2");
                self.until("it is rolled back", phase_is("Failed")).await;
            }
            Scenario::Unready => {
                self.world.set_image("podinfo", "podinfo:6.0.1-noready");
                self.until("it is rolled back", phase_is("Failed")).await;
            }
            Scenario::Restarted => {
                self.world.set_image("podinfo", "podinfo:6.0.1");
                self.until("it is half-way", |world| world.status("podinfo")["canaryWeight"] == 20).await;
                self.world.set_image("podinfo", "podinfo:6.0.3");
                self.until("it is promoted", phase_is("Succeeded")).await;
            }
        }
    }

    fn arm(&mut self) {
        self.before = self.world.cluster.calls().snapshot();
        match self.deaths {
            Deaths::Never => {}
            Deaths::After(writes) => self.world.cluster.faults().kill_client_after_writes(&self.world.agent, writes),
            Deaths::Always => self.world.cluster.faults().kill_client_after_writes(&self.world.agent, 1),
        }
    }

    /// The next life begins at once.
    fn start_anew(&mut self) {
        self.world.kill();
        self.killed += 1;
        self.world.agent = format!("aviary-{}", self.killed + 1);
        if self.deaths == Deaths::Always {
            self.world.cluster.faults().kill_client_after_writes(&self.world.agent, 1);
        }
        self.world.start();
    }

    /// Waits for a condition, over any number of deaths.
    async fn until(&mut self, what: &str, condition: impl Fn(&World) -> bool) {
        let faults = self.world.cluster.faults().clone();
        let mut changes = self.world.cluster.store().subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
        while !condition(&self.world) {
            let agent = self.world.agent.clone();
            tokio::select! {
                biased;
                () = faults.wait_killed(&agent) => self.start_anew(),
                next = tokio::time::timeout_at(deadline, changes.recv()) => {
                    assert!(next.is_ok(), "waited an hour until {what}\n{}", self.world.story());
                }
            }
        }
    }

    /// What is under way comes to its end, over any number of deaths.
    async fn settle(&mut self) {
        let faults = self.world.cluster.faults().clone();
        loop {
            let agent = self.world.agent.clone();
            tokio::select! {
                () = faults.wait_killed(&agent) => self.start_anew(),
                () = tokio::time::sleep(Duration::from_secs(120)) => return,
            }
        }
    }

    fn end(mut self, scenario: Scenario) -> End {
        let context = format!("{scenario:?}, killed: {:?}", self.deaths);
        let violations = self.watchman.violations();
        assert!(violations.is_empty(), "{context}: {violations:#?}\n{}", self.world.story());
        let report = self.world.traffic.report("test", "podinfo");
        assert_eq!(report.interruptions, 0, "{context}\n{}", self.world.story());
        assert!(report.requests() > 1000.0, "{context}: {report:?}");
        if !scenario.is_bad() {
            assert!(report.failures() < 1e-6, "{context}: {report:?}");
        }
        End {
            cluster: final_state(&self.world.cluster),
            // Not those of the user.
            writes: self.world.cluster.calls().since(&self.before).of_client(AGENT).writes(),
            killed: self.killed,
        }
    }
}

fn config(kind: &str, name: &str, field: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"namespace": "test", "name": name},
        field: {"key": value},
    })
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "test", "name": "podinfo"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}},
            }],
        },
    })
}

/// It is scaled by the load of its users, which is far from what would change anything.
fn scaled_object() -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"namespace": "test", "name": "podinfo-so"},
        "spec": {
            "scaleTargetRef": {"name": "podinfo"},
            "pollingInterval": 10, "cooldownPeriod": 20, "minReplicaCount": 2, "maxReplicaCount": 4,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": "http://prometheus:9090",
                "query": "sum(rate(http_requests_total{app=\"podinfo\"}[30s]))",
                "threshold": "5000",
            }}],
        },
    })
}

/// A controller dies once, after each of its writes in turn, and then after each write that it ever makes.
fn survives_every_kill(scenario: Scenario, fewest_writes: u64) {
    let undisturbed = in_virtual_time(Run::of(scenario, Deaths::Never));
    assert_eq!(undisturbed.killed, 0);
    assert!(undisturbed.writes >= fewest_writes, "{scenario:?}: only {} writes", undisturbed.writes);
    let mut points = 0;
    for deaths in (1..).map(Deaths::After) {
        let end = in_virtual_time(Run::of(scenario, deaths));
        assert_same_end(&undisturbed.cluster, &end.cluster, &format!("{scenario:?}, killed: {deaths:?}"));
        if end.killed == 0 {
            break;
        }
        points += 1;
    }
    assert_eq!(points, undisturbed.writes, "{scenario:?}: a controller died after each write");
    // A rollback that was cut after its scale-down gives the pods another chance, with a deadline of its own: a
    // controller that always dies there tries for ever. Users are on the primary all the while.
    if scenario == Scenario::Unready {
        return;
    }
    let end = in_virtual_time(Run::of(scenario, Deaths::Always));
    assert_same_end(&undisturbed.cluster, &end.cluster, &format!("{scenario:?}, always killed"));
    assert!(end.killed >= undisturbed.writes, "{scenario:?}: {} deaths", end.killed);
    println!("{scenario:?}: {points} writes, {} deaths in a crash loop", end.killed);
}

#[test]
fn a_good_release_survives_every_kill() {
    survives_every_kill(Scenario::Good(0), 18);
}

#[test]
fn a_good_release_with_steps_back_survives_every_kill() {
    survives_every_kill(Scenario::Good(50), 18);
}

#[test]
fn a_release_of_configs_survives_every_kill() {
    survives_every_kill(Scenario::Configs, 20);
}

#[test]
fn a_release_without_analysis_survives_every_kill() {
    survives_every_kill(Scenario::Skipped, 5);
}

#[test]
fn a_release_with_an_autoscaler_survives_every_kill() {
    survives_every_kill(Scenario::Autoscaled, 19);
}

#[test]
fn a_release_scaled_by_keda_survives_every_kill() {
    survives_every_kill(Scenario::ScaledByKeda, 19);
}

#[test]
fn a_bad_release_scaled_by_keda_survives_every_kill() {
    survives_every_kill(Scenario::BadScaledByKeda, 11);
}

#[test]
fn a_deletion_of_what_keda_scales_survives_every_kill() {
    survives_every_kill(Scenario::RevertedScaledByKeda, 10);
}

#[test]
fn a_bad_release_survives_every_kill() {
    survives_every_kill(Scenario::Bad, 10);
}

#[test]
fn a_bootstrap_survives_every_kill() {
    survives_every_kill(Scenario::Bootstrap, 8);
}

#[test]
fn a_release_that_is_overtaken_survives_every_kill() {
    survives_every_kill(Scenario::Restarted, 22);
}

#[test]
fn a_release_that_never_becomes_ready_survives_every_kill() {
    survives_every_kill(Scenario::Unready, 4);
}

#[test]
fn an_ab_test_survives_every_kill() {
    survives_every_kill(Scenario::AbTest, 9);
}

#[test]
fn blue_green_survives_every_kill() {
    survives_every_kill(Scenario::BlueGreen, 11);
}

#[test]
fn a_release_with_copies_survives_every_kill() {
    survives_every_kill(Scenario::Mirrored, 20);
}

/// The cookies are part of the end that must be the same.
#[test]
fn a_release_with_session_affinity_survives_every_kill() {
    survives_every_kill(Scenario::Sticky, 18);
}

#[test]
fn a_deletion_survives_every_kill() {
    survives_every_kill(Scenario::Reverted, 9);
}

#[test]
fn a_release_without_a_mesh_survives_every_kill() {
    survives_every_kill(Scenario::WithoutMesh, 7);
}

#[test]
fn a_release_of_a_daemon_set_survives_every_kill() {
    survives_every_kill(Scenario::DaemonSet, 18);
}

#[test]
fn a_bad_release_of_a_daemon_set_survives_every_kill() {
    survives_every_kill(Scenario::BadDaemonSet, 10);
}

#[test]
fn a_deletion_of_a_daemon_sets_canary_survives_every_kill() {
    survives_every_kill(Scenario::RevertedDaemonSet, 9);
}

#[test]
fn a_release_of_a_service_survives_every_kill() {
    survives_every_kill(Scenario::Service, 14);
}

/// Whether the controller is away for a moment or for long, every weight is held for an interval.
#[test]
fn a_soak_is_never_shortened() {
    for (after, away) in [(1, 0), (9, 0), (5, 600), (1, 600)] {
        in_virtual_time(async {
            let mut world = World::new(11);
            world.deploy("podinfo").await;
            world.start();
            world.wait_for_phase("podinfo", "Initialized").await;
            world.pass(Duration::from_secs(120)).await;
            let journal = world.follow("test", "podinfo");
            world.set_image("podinfo", "podinfo:6.0.1");
            for weight in [10, 20, 30] {
                world.wait_until("weight", || world.status("podinfo")["canaryWeight"] == weight).await;
                world.pass(Duration::from_secs(after)).await;
                world.kill();
                world.pass(Duration::from_secs(away)).await;
                assert_eq!(world.status("podinfo")["canaryWeight"], weight, "a killed controller does nothing");
                world.start();
            }
            world.wait_for_phase("podinfo", "Succeeded").await;
            for weight in [20, 30, 40, 50] {
                let held =
                    journal.time_of("Progressing", weight).duration_since(journal.time_of("Progressing", weight - 10));
                let shortest = if weight <= 40 { i64::try_from((after + away).max(10)).unwrap() } else { 10 };
                // An absence ends with the check that was due; nothing else delays the next weight.
                assert!((shortest..=shortest + 1).contains(&held.as_secs()), "{after} {away} {weight}: {held:?}");
            }
        });
    }
}
