//! Steerer's Rollout on real Istio: the objects of its guide, with users. One good version, and one bad version that halts until
//! it is mended. Beside it run [Canaries of Flagger 0.1](super::flagger_0_1), by the same operator.
//!
//! `AVIARY_REAL_FULL=1` has the documents' own steps and intervals; the sample has few and short ones.

use std::time::Duration;

use aviary_loadtest::cluster_network::BEHAVIOUR_ANNOTATION;
use aviary_loadtest::users::{self, Report, Users};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::release::{GATEWAY, answers};
use super::{Inside, api, create_through, get, in_bench, is_full_set, set_image, told_of};
use crate::steerer::guide;
use crate::support::process::{eventually, eventually_within};

const HOST: &str = "app.example.com";
/// In the sample: as often as the bench's Prometheus has something new to say, and a bit.
const CONTROL_LOOP: &str = "--control-loop-interval=3s";
/// For a release of the guide: ten intervals of ten seconds and a window of a minute that has to forget errors, several times.
const PATIENCE: Duration = Duration::from_secs(600);
/// A machine that is busy with something else stands still for seconds.
pub(super) const USERS_PATIENCE: Duration = Duration::from_secs(10);

/// The guide's objects; in the sample in few steps and with a window that forgets soon.
pub(super) fn objects() -> Vec<Value> {
    guide(|object| {
        if object["kind"] == "Rollout" && !is_full_set() {
            object["spec"]["virtualService"]["weight"] = json!(50);
            object["spec"]["metric"]["interval"] = json!("5s");
        }
        true
    })
}

fn step() -> u64 {
    if is_full_set() { 10 } else { 50 }
}

struct Scene {
    client: Client,
}

impl Scene {
    async fn rollout(&self) -> Value {
        let rollouts = api(self.client.clone(), "apps.weave.works", "v1beta1", "Rollout", Some("test"));
        get(&rollouts, "podinfo").await.unwrap()
    }

    async fn is(&self, state: &str) {
        eventually_within(PATIENCE, state, async || self.rollout().await["status"]["state"] == state).await;
    }

    async fn texts(&self) -> Vec<String> {
        told_of(&self.client, "test", "Rollout", "steerer").await
    }

    async fn routes(&self) -> Value {
        let routes = api(self.client.clone(), "networking.istio.io", "v1", "VirtualService", Some("test"));
        get(&routes, "podinfo").await.unwrap()["spec"].clone()
    }

    /// From weight 60 on every fifth request to the canary fails, until the rollout has halted.
    async fn fails_for_a_while_as_in_the_guide(&self) {
        let at_60 =
            async || self.rollout().await["status"]["canary_weight"].as_u64().is_some_and(|weight| weight >= 60);
        eventually_within(PATIENCE, "weight 60", at_60).await;
        self.canary_behaves(json!(r#"{"errorRatio": 0.2}"#)).await;
        eventually_within(PATIENCE, "it halts", async || self.halts().await > 0).await;
        self.canary_behaves(Value::Null).await;
    }

    /// For how many success rates.
    async fn halts(&self) -> usize {
        let is_halt = |text: &&String| text.starts_with("Halt rollout podinfo.test success rate ");
        self.texts().await.iter().filter(is_halt).count()
    }

    async fn canary_behaves(&self, behaviour: Value) {
        let pods = api(self.client.clone(), "", "v1", "Pod", Some("test"));
        let change = Patch::Merge(json!({"metadata": {"annotations": {BEHAVIOUR_ANNOTATION: behaviour}}}));
        for pod in pods.list(&ListParams::default().labels("app=podinfo-canary")).await.unwrap() {
            pods.patch(&pod.metadata.name.unwrap(), &PatchParams::default(), &change).await.unwrap();
        }
    }

    async fn image(&self, name: &str) -> String {
        let deployments = api(self.client.clone(), "apps", "v1", "Deployment", Some("test"));
        let deployment = get(&deployments, name).await.unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_rollout_and_canaries_of_flagger_0_1_run_on_istio_side_by_side() {
    in_bench(
        "real::rollouts::a_rollout_and_canaries_of_flagger_0_1_run_on_istio_side_by_side",
        async |bench: Inside| {
            let client = bench.client("admin").await;
            let _network = bench.network().await;
            let control_loop: &[&str] = if is_full_set() { &[] } else { &[CONTROL_LOOP] };
            let _aviary = bench.start_aviary(&[&["--mesh-provider", "istio"], control_loop].concat());
            tokio::join!(
                a_rollout(&bench, &client),
                super::flagger_0_1::a_good_and_a_failing_version(&bench, &client),
                super::flagger_0_1::a_good_and_a_slow_version(&bench, &client),
            );
            super::flagger_0_1::each_namespace_has_durations_in_one_unit().await;
        },
    );
}

async fn a_rollout(bench: &Inside, client: &Client) {
    let scene = Scene { client: client.clone() };
    let (rollouts, others): (Vec<Value>, Vec<Value>) =
        objects().into_iter().partition(|object| object["kind"] == "Rollout");
    for object in others {
        create_through(scene.client.clone(), object).await;
    }
    eventually("the primary answers", async || answers(HOST).await).await;
    let options = users::Options::new(GATEWAY.parse().unwrap(), 100.0).unwrap().host(HOST);
    let users = Users::start(options.timeout(USERS_PATIENCE)).unwrap();
    let mut spec = scene.routes().await;

    for object in rollouts {
        create_through(scene.client.clone(), object).await;
    }
    if is_full_set() {
        scene.fails_for_a_while_as_in_the_guide().await;
    }
    scene.is("finished").await;
    bench.show("-n test describe rollout/podinfo");
    assert_costs_nothing_but(&users.snapshot(), is_bad);
    assert!(scene.image("podinfo").await.ends_with(":1.2.0"));
    let is_step = |text: &String| !text.starts_with("Waiting") && !text.starts_with("Halt");
    let texts: Vec<String> = scene.texts().await.into_iter().filter(is_step).collect();
    let steps = (1..=100 / step()).map(|count| format!("Advance rollout podinfo.test weight {}", count * step()));
    let expected: Vec<String> = [
        vec!["Starting rollout for podinfo.test".to_owned()],
        steps.collect(),
        vec![
            "Copying podinfo-canary.test template spec to podinfo.test".to_owned(),
            "Promotion complete! Scaling down podinfo-canary.test".to_owned(),
        ],
    ]
    .concat();
    assert_eq!(texts, expected);
    assert_eq!(scene.routes().await, spec, "the timeout, and all else of its owner's");

    let halts = scene.halts().await;
    set_image(&scene.client, "podinfo-canary", "quay.io/stefanprodan/podinfo:1.3.0-err10").await;
    eventually_within(PATIENCE, "it halts", async || scene.halts().await > halts).await;
    // A step or more: the window may have requests of the version before, which drown errors.
    let status = scene.rollout().await["status"].clone();
    let weight = status["canary_weight"].as_u64().unwrap();
    assert!((step()..100).contains(&weight) && status["state"] == "running", "{status}");
    spec["http"][0]["route"][0]["weight"] = json!(100 - weight);
    spec["http"][0]["route"][1]["weight"] = json!(weight);
    assert_eq!(scene.routes().await, spec);
    bench.show("-n test describe rollout/podinfo");
    set_image(&scene.client, "podinfo-canary", "quay.io/stefanprodan/podinfo:1.4.0").await;
    scene.is("finished").await;
    assert!(scene.image("podinfo").await.ends_with(":1.4.0"));
    let report = users.stop().await;
    println!("Rollout: {report}");
    bench.show("-n test get roll");
    assert!(report.failures() > 0);
    assert_costs_nothing_but(&report, is_bad);
}

/// The good version of the full set is bad for a while, as in the guide.
fn is_bad(version: &str) -> bool {
    version.contains("-err") || is_full_set() && version == "1.2.0"
}

fn assert_costs_nothing_but(report: &Report, is_bad: impl Fn(&str) -> bool) {
    for totals in report.versions() {
        let may_fail = totals.version.as_deref().is_some_and(&is_bad);
        assert!(may_fail || totals.failures == 0, "{totals:?}: {:#?}", report.first_failures());
    }
}
