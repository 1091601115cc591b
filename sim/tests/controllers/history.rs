//! Revisions of DaemonSets and StatefulSets, CronJobs, quotas, and events that repeat themselves.

use std::time::Duration;

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

/// Number, image and name of each revision, oldest first.
fn revisions(bench: &Bench) -> Vec<(i64, String, String)> {
    let mut found: Vec<(i64, String, String)> = bench
        .store
        .list(&kinds::CONTROLLER_REVISION, Some(NAMESPACE))
        .iter()
        .map(|revision| {
            let image = revision["data"]["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            (revision["revision"].as_i64().unwrap(), image.to_owned(), pod_name(revision))
        })
        .collect();
    found.sort();
    found
}

fn stateful_set() -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": {
            "replicas": 1, "revisionHistoryLimit": 2, "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
            },
        },
    })
}

async fn set_image(bench: &Bench, kind: &GroupKind, image: &str) {
    let change = |object: &mut Value| object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    bench.store.update(kind, NAMESPACE, "agent", change).unwrap();
    sleep(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn every_template_is_a_revision_and_one_that_returns_becomes_the_newest() {
    for (kind, object) in [(kinds::DAEMON_SET, daemon_set()), (kinds::STATEFUL_SET, stateful_set())] {
        let bench = Bench::new(PodDetail::Objects);
        bench.store.create(&kind, object).unwrap();
        sleep(Duration::from_secs(10)).await;
        let first = revisions(&bench);
        assert_eq!((first.len(), first[0].0, first[0].1.as_str()), (1, 1, "agent:1"), "{kind}");
        set_image(&bench, &kind, "agent:2").await;
        let images = |found: &[(i64, String, String)]| -> Vec<(i64, String)> {
            found.iter().map(|(number, image, _)| (*number, image.clone())).collect()
        };
        assert_eq!(images(&revisions(&bench)), [(1, "agent:1".to_owned()), (2, "agent:2".to_owned())], "{kind}");
        set_image(&bench, &kind, "agent:1").await;
        let after = revisions(&bench);
        assert_eq!(images(&after), [(2, "agent:2".to_owned()), (3, "agent:1".to_owned())], "{kind}");
        assert_eq!(after[1].2, first[0].2, "{kind}: the same revision under another number");
        let pods = bench.pods();
        let label = pods[0]["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap();
        assert!(after[1].2.ends_with(label), "{kind}: {label} of {}", after[1].2);
        bench.store.delete(&kind, NAMESPACE, "agent").unwrap();
        assert_eq!(revisions(&bench), [], "{kind}: gone with their owner");
    }
}

#[tokio::test(start_paused = true)]
async fn old_revisions_are_forgotten_beyond_the_limit() {
    let bench = Bench::new(PodDetail::Objects);
    bench.store.create(&kinds::STATEFUL_SET, stateful_set()).unwrap();
    sleep(Duration::from_secs(10)).await;
    for number in 2..=6 {
        set_image(&bench, &kinds::STATEFUL_SET, &format!("agent:{number}")).await;
    }
    let numbers: Vec<i64> = revisions(&bench).iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [4, 5, 6], "the present one and two before it");
}

fn cron_job(policy: &str) -> Value {
    json!({
        "metadata": {"name": "tidy", "namespace": NAMESPACE},
        "spec": {
            "schedule": "*/10 * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"app": "tidy"}}, "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "tidy", "image": "tidy:1"}],
            }}}},
        },
    })
}

fn jobs(bench: &Bench) -> Vec<String> {
    bench.store.list(&kinds::JOB, Some(NAMESPACE)).iter().map(|job| pod_name(job)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_a_job_at_each_moment_and_keeps_three() {
    let bench = Bench::new(PodDetail::Objects);
    bench.store.create(&kinds::CRON_JOB, cron_job("Allow")).unwrap();
    bench.at(599.0).await;
    assert_eq!(jobs(&bench), [] as [&str; 0]);
    bench.at(601.0).await;
    // 2026-01-01T00:10:00Z in minutes.
    assert_eq!(jobs(&bench), ["tidy-29453770"]);
    let cron_job = bench.store.get(&kinds::CRON_JOB, NAMESPACE, "tidy").unwrap();
    assert_eq!(cron_job["status"]["active"][0]["name"], "tidy-29453770");
    assert_eq!(cron_job["status"]["lastScheduleTime"], "2026-01-01T00:10:00Z");
    bench.at(700.0).await;
    let cron_job = bench.store.get(&kinds::CRON_JOB, NAMESPACE, "tidy").unwrap();
    assert!(cron_job["status"].get("active").is_none(), "{}", cron_job["status"]);
    assert_eq!(cron_job["status"]["lastSuccessfulTime"], "2026-01-01T00:10:03Z");
    let job = bench.store.get(&kinds::JOB, NAMESPACE, "tidy-29453770").unwrap();
    assert_eq!(job["metadata"]["labels"]["app"], "tidy");
    bench.at(3100.0).await;
    assert_eq!(jobs(&bench), ["tidy-29453790", "tidy-29453800", "tidy-29453810"]);
    bench.store.update(&kinds::CRON_JOB, NAMESPACE, "tidy", |job| job["spec"]["suspend"] = true.into()).unwrap();
    bench.at(9000.0).await;
    assert_eq!(jobs(&bench).len(), 3, "suspended");
    bench.store.update(&kinds::CRON_JOB, NAMESPACE, "tidy", |job| job["spec"]["suspend"] = false.into()).unwrap();
    bench.at(9001.0).await;
    assert_eq!(jobs(&bench).last().map(String::as_str), Some("tidy-29453910"), "the latest that was missed");
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_that_forbids_it_starts_no_second_job() {
    for (policy, expected) in [
        ("Forbid", ["tidy-29453770"].as_slice()),
        ("Allow", &["tidy-29453770", "tidy-29453780"]),
        ("Replace", &["tidy-29453780"]),
    ] {
        let bench = Bench::new(PodDetail::Objects);
        let mut cron_job = cron_job(policy);
        // A pod that never ends.
        cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] = "tidy:noready".into();
        bench.store.create(&kinds::CRON_JOB, cron_job).unwrap();
        bench.at(1300.0).await;
        assert_eq!(jobs(&bench), expected, "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_what_its_namespace_uses() {
    let bench = Bench::new(PodDetail::Objects);
    let hard = json!({"pods": "5", "requests.cpu": "2", "count/deployments.apps": "4", "services": "3", "gpus": "1"});
    let quota = json!({"metadata": {"name": "quota", "namespace": NAMESPACE}, "spec": {"hard": hard}});
    bench.store.create(&kinds::RESOURCE_QUOTA, quota).unwrap();
    let used = || bench.store.get(&kinds::RESOURCE_QUOTA, NAMESPACE, "quota").unwrap()["status"]["used"].clone();
    sleep(Duration::from_secs(1)).await;
    let nothing = json!({"pods": "0", "requests.cpu": "0", "count/deployments.apps": "0", "services": "0"});
    assert_eq!(used(), nothing);
    let mut podinfo = deployment("podinfo", 3, "podinfo:1");
    podinfo["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "250m"}});
    bench.create(podinfo);
    bench.until_complete("podinfo").await;
    sleep(Duration::from_secs(1)).await;
    let some = json!({"pods": "3", "requests.cpu": "750m", "count/deployments.apps": "1", "services": "0"});
    assert_eq!(used(), some);
    bench.store.delete(&kinds::DEPLOYMENT, NAMESPACE, "podinfo").unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(used(), nothing);
}

#[tokio::test(start_paused = true)]
async fn pods_that_a_quota_refuses_come_once_there_is_room() {
    let bench = Bench::new(PodDetail::Objects);
    let quota = json!({"metadata": {"name": "quota", "namespace": NAMESPACE}, "spec": {"hard": {"pods": "2"}}});
    bench.store.create(&kinds::RESOURCE_QUOTA, quota).unwrap();
    bench.create(deployment("podinfo", 3, "podinfo:1"));
    let failure = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "ReplicaFailure")
    };
    let refused = bench.until("podinfo", "refused a pod", |object| failure(object).is_some()).await;
    let condition = failure(&refused).unwrap();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("FailedCreate")));
    let message = condition["message"].as_str().unwrap();
    let cause = "is forbidden: exceeded quota: quota, requested: pods=1, used: pods=2, limited: pods=2";
    assert!(message.starts_with("pods \"podinfo-") && message.ends_with(cause), "{message}");
    sleep(Duration::from_secs(25)).await;
    assert_eq!(bench.pods().len(), 2);
    let events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    let told: Vec<_> = events.iter().filter(|event| event["reason"] == "FailedCreate").collect();
    assert!(told.iter().all(|event| event["message"].as_str().unwrap().starts_with("Error creating: pods ")));
    assert!(!told.is_empty() && told[0]["type"] == "Warning");
    let raise = |quota: &mut serde_json::Value| quota["spec"]["hard"]["pods"] = "3".into();
    bench.store.update(&kinds::RESOURCE_QUOTA, NAMESPACE, "quota", raise).unwrap();
    let complete = bench.until_complete("podinfo").await;
    assert_eq!(failure(&complete), None);
}

#[tokio::test(start_paused = true)]
async fn the_tenth_pod_of_a_set_is_told_with_those_after_it() {
    let bench = Bench::new(PodDetail::Objects);
    bench.create(deployment("podinfo", 14, "podinfo:1"));
    bench.until_complete("podinfo").await;
    let mut events = bench.store.list(&kinds::EVENT, Some(NAMESPACE));
    events.retain(|event| event["reason"] == "SuccessfulCreate");
    assert_eq!(events.len(), 10);
    let combined: Vec<_> =
        events.iter().filter(|event| event["message"].as_str().unwrap().starts_with("(combined")).collect();
    assert_eq!((combined.len(), &combined[0]["count"]), (1, &json!(5)));
}
