//! What `/metrics` says: names, types and labels, and the values through releases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aviary_actors::Metrics;
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use serde_json::json;

use crate::support::{World, canary, deployment, in_virtual_time};

/// Name, type and labels of every metric of an exposition text, one on each line.
fn inventory(text: &str) -> String {
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            kinds.insert(name, kind);
            continue;
        }
        let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else { continue };
        let (name, pairs) = series.split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|family| kinds.get(family) == Some(&"histogram")));
        let names = pairs.split("=\"").filter_map(|part| part.rsplit(['{', ',']).next());
        let names = names.filter(|name| !name.is_empty() && *name != "le" && !name.contains(['"', '}']));
        labels.entry(family.unwrap_or(name)).or_default().extend(names.map(str::to_owned));
    }
    let lines = kinds.into_iter().map(|(name, kind)| {
        let labels: Vec<String> = labels.remove(name).unwrap_or_default().into_iter().collect();
        format!("{name} {kind} {{{}}}\n", labels.join(","))
    });
    lines.collect()
}

/// The list is part of the documentation; a change of it breaks somebody's dashboard.
#[test]
fn names_types_and_labels_are_as_promised() {
    let metrics = Metrics::new().unwrap();
    // Families without a series are not shown.
    metrics.info.with_label_values(&["v", "m"]).set(1.0);
    metrics.canary_total.with_label_values(&["n"]).set(1);
    metrics.canary_status.with_label_values(&["t", "n"]).set(1);
    metrics.canary_weight.with_label_values(&["w", "n"]).set(1);
    metrics.metric_analysis.with_label_values(&["t", "n", "m"]).set(1.0);
    metrics.canary_duration.with_label_values(&["t", "n"]).observe(1.0);
    metrics.successes.with_label_values(&["t", "n", "s", "a"]).inc();
    metrics.failures.with_label_values(&["t", "n", "s", "a"]).inc();
    metrics.api_calls.with_label_values(&["v", "k"]).inc();
    metrics.restarts.with_label_values(&["n"]).inc();
    metrics.query_duration.with_label_values(&["b"]).observe(1.0);
    metrics.queries.with_label_values(&["b", "r"]).inc();
    metrics.violations.with_label_values(&["i"]).inc();
    metrics.webhooks.with_label_values(&["t", "r"]).inc();
    metrics.alerts.with_label_values(&["r"]).inc();
    metrics.leader.with_label_values(&["n"]).set(1);
    let found = inventory(&metrics.render().unwrap());
    let expected = include_str!("snapshots/metrics.txt");
    assert!(found == expected, "tests/snapshots/metrics.txt is not what there is:\n{found}");
}

fn release_ended(kind: &str, status: &str) -> String {
    format!(
        "flagger_canary_{kind}_total{{analysis_status=\"{status}\",deployment_strategy=\"canary\",name=\"podinfo\",namespace=\"test\"}}"
    )
}

/// The canary has another name than its target, which is what the labels carry.
async fn begin(world: &mut World, skip: bool) {
    let mut object = canary("test", "podinfo");
    object["metadata"]["name"] = json!("my-canary");
    object["spec"]["skipAnalysis"] = json!(skip);
    world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
    world.create(object).await;
    world.start();
    world.wait_for_phase("my-canary", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
}

const STATUS: &str = "flagger_canary_status{name=\"podinfo\",namespace=\"test\"}";
const CANARY_WEIGHT: &str = "flagger_canary_weight{namespace=\"test\",workload=\"podinfo\"}";
const PRIMARY_WEIGHT: &str = "flagger_canary_weight{namespace=\"test\",workload=\"podinfo-primary\"}";

#[test]
fn values_follow_a_good_release() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.config.version = "1.2.3".to_owned();
        begin(&mut world, false).await;
        assert_eq!(world.metric("flagger_info{mesh_provider=\"istio\",version=\"1.2.3\"}"), Some(1.0));
        assert_eq!(world.metric("flagger_canary_total{namespace=\"test\"}"), Some(1.0));
        assert_eq!(world.metric(STATUS), Some(1.0));
        assert_eq!((world.metric(CANARY_WEIGHT), world.metric(PRIMARY_WEIGHT)), (Some(0.0), Some(100.0)));
        assert_eq!(world.metric(&release_ended("successes", "completed")), None);

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("my-canary")["canaryWeight"] == 20).await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.metric(STATUS), Some(0.0));
        assert_eq!((world.metric(CANARY_WEIGHT), world.metric(PRIMARY_WEIGHT)), (Some(20.0), Some(80.0)));
        let analysed = |metric: &str| {
            world.metric(&format!(
                "flagger_canary_metric_analysis{{metric=\"{metric}\",name=\"podinfo\",namespace=\"test\"}}"
            ))
        };
        assert_eq!(analysed("request-success-rate"), Some(100.0));
        // Pods of the embedded cluster take 60 ms at the 99th percentile; few requests show that as anything from a little less
        // than 50 ms to 100 ms, the bounds of the bucket. Flagger's gauge is in seconds.
        let duration = analysed("request-duration").expect("measured");
        assert!((0.045..=0.1).contains(&duration), "{duration} s");
        let rounds = world.metric("flagger_canary_duration_seconds_count{name=\"podinfo\",namespace=\"test\"}");
        assert_eq!(rounds, Some(1.0), "one round took the weight from 10 to 20");

        world.wait_for_phase("my-canary", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.metric(STATUS), Some(1.0));
        assert_eq!((world.metric(CANARY_WEIGHT), world.metric(PRIMARY_WEIGHT)), (Some(0.0), Some(100.0)));
        assert_eq!(world.metric(&release_ended("successes", "completed")), Some(1.0));
        assert_eq!(world.metric(&release_ended("failures", "completed")), None);
        let live = inventory(&world.metrics());
        let known = include_str!("snapshots/metrics.txt");
        let unknown: Vec<&str> = live.lines().filter(|line| !known.contains(line)).collect();
        // Families without a series of their own have no labels in the text.
        assert!(unknown.is_empty(), "{unknown:#?}");
    });
}

#[test]
fn values_follow_a_bad_release() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.5));
        begin(&mut world, false).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("my-canary", "Failed").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.metric(STATUS), Some(2.0));
        assert_eq!((world.metric(CANARY_WEIGHT), world.metric(PRIMARY_WEIGHT)), (Some(0.0), Some(100.0)));
        assert_eq!(world.metric(&release_ended("failures", "completed")), Some(1.0));
        assert_eq!(world.metric(&release_ended("successes", "completed")), None);
    });
}

#[test]
fn a_release_without_analysis_counts_as_skipped() {
    in_virtual_time(async {
        let mut world = World::new(1);
        begin(&mut world, true).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("my-canary", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.metric(&release_ended("successes", "skipped")), Some(1.0));
        assert_eq!(world.metric(&release_ended("successes", "completed")), None);
    });
}

#[test]
fn series_go_with_the_canary_and_with_its_target() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(deployment("test", "successor", "podinfo:6.0.0")).await;
        begin(&mut world, false).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("my-canary", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;

        world.patch_canary("my-canary", json!({"targetRef": {"name": "successor"}})).await;
        world.pass(Duration::from_secs(60)).await;
        let text = world.metrics();
        let left: Vec<&str> = text.lines().filter(|line| line.contains("\"podinfo")).collect();
        assert!(left.is_empty(), "{left:#?}");
        assert!(text.contains("name=\"successor\""), "{text}");

        world.delete(&kinds::CANARY, "my-canary").await;
        world.pass(Duration::from_secs(60)).await;
        let text = world.metrics();
        assert!(!text.contains("successor"), "{text}");
        assert_eq!(world.metric("flagger_canary_total{namespace=\"test\"}"), Some(0.0));
    });
}
