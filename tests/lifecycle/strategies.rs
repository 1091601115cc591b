//! A/B tests, blue/green and mirroring: who sees the canary, and what users notice.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use serde_json::{Value, json};

use crate::support::{World, in_virtual_time, iterations};

fn ab_test(canary: &mut Value) {
    iterations(canary, 3);
    canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
}

impl World {
    fn admit_insiders(&self) {
        let headers = BTreeMap::from([("x-user".to_owned(), "insider".to_owned())]);
        self.traffic.set_audience_load("test", "podinfo", &headers, 50.0);
    }

    /// Requests that the workload answered to users until now.
    fn answered_by(&self, workload: &str) -> f64 {
        self.traffic.report("test", "podinfo").workload(workload).requests
    }

    async fn released(&self) -> Vec<String> {
        self.wait_until("the end", || ["Succeeded", "Failed"].contains(&self.phase("podinfo").as_str())).await;
        self.pass(Duration::from_secs(5)).await;
        self.events_from("podinfo", "Starting")
    }
}

#[test]
fn an_ab_test_shows_the_canary_to_those_who_meet_the_conditions() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(ab_test).await;
        world.admit_insiders();
        world.pass(Duration::from_secs(60)).await;
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the first iteration", || world.status("podinfo")["iterations"] == 1).await;
        let (before, everybody) = (world.answered_by("podinfo"), world.answered_by("podinfo-primary"));
        world.pass(Duration::from_secs(9)).await;
        // 50 insiders a second, and 20 others.
        let insiders = world.answered_by("podinfo") - before;
        assert!((449.0..=451.0).contains(&insiders), "{insiders}");
        let others = world.answered_by("podinfo-primary") - everybody;
        assert!((179.0..=181.0).contains(&others), "{others}");

        let expected = [
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary iteration 1/3",
            "Advance podinfo.test canary iteration 2/3",
            "Advance podinfo.test canary iteration 3/3",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        assert_eq!(world.released().await, expected, "{}", world.story());
        world.assert_undisturbed();
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
        let steps: Vec<_> = journal.steps();
        let steps: Vec<(&str, u64)> = steps.iter().map(|(phase, weight)| (phase.as_str(), *weight)).collect();
        let expected =
            [("Progressing", 0), ("Progressing", 100), ("Promoting", 100), ("Finalising", 0), ("Succeeded", 0)];
        assert_eq!(steps, expected);
        let counted = r#"flagger_canary_successes_total{analysis_status="completed",deployment_strategy="ab-testing",name="podinfo",namespace="test"}"#;
        assert_eq!(world.metric(counted), Some(1.0), "{}", world.metrics());
    });
}

#[test]
fn a_bad_ab_test_hurts_insiders_alone_and_is_rolled_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(ab_test).await;
        world.admit_insiders();
        world.traffic.set_behaviour("podinfo:6.0.1", Behaviour::failing(0.5));
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Failed").await;
        let report = world.traffic.report("test", "podinfo");
        assert!(report.workload("podinfo").failures > 0.0);
        assert_eq!(report.workload("podinfo-primary").failures, 0.0);
        assert_eq!(report.interruptions, 0);
        assert_eq!(world.weight(), 0);
        world.wait_until("the pods go", || world.replicas_of("podinfo") == 0).await;
    });
}

/// The canary of an A/B test dies: its users go back to the primary, and no iteration counts meanwhile.
#[test]
fn insiders_are_taken_off_a_canary_that_dies() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(ab_test).await;
        world.admit_insiders();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the first iteration", || world.status("podinfo")["iterations"] == 1).await;
        world.set_image("podinfo", "podinfo:6.0.2-noready");
        world.pass(Duration::from_secs(30)).await;
        let before = world.answered_by("podinfo");
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.answered_by("podinfo"), before, "{}", world.story());
        assert_eq!(world.traffic.report("test", "podinfo").failures(), 0.0);
    });
}

#[test]
fn blue_green_shows_the_canary_to_everybody_after_the_iterations() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|canary| iterations(canary, 3)).await;
        // What a load tester sends.
        world.traffic.set_load("test", "podinfo-canary", 20.0);
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the last iteration", || world.status("podinfo")["iterations"] == 3).await;
        assert_eq!(world.answered_by("podinfo"), 0.0, "no user so far");
        let expected = [
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary iteration 1/3",
            "Advance podinfo.test canary iteration 2/3",
            "Advance podinfo.test canary iteration 3/3",
            "Routing all traffic to canary",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        assert_eq!(world.released().await, expected, "{}", world.story());
        world.assert_undisturbed();
        assert!(world.answered_by("podinfo") > 0.0);
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
    });
}

#[test]
fn blue_green_is_judged_by_copies_of_the_requests() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin(|canary| {
                iterations(canary, 3);
                canary["spec"]["analysis"]["mirror"] = json!(true);
            })
            .await;
        world.load_heavily();
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.5));
        world.set_image("podinfo", "podinfo:6.0.1");
        let events = world.released().await;
        assert!(events.contains(&"Stop traffic mirroring and route all traffic to canary".to_owned()), "{events:#?}");
        world.assert_undisturbed();

        // A bad one is seen on the copies, before any user meets it.
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.assert_undisturbed();
        let route = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap()["spec"]["http"][0].clone();
        assert_eq!(route.get("mirror"), None);
    });
}

#[test]
fn a_weighted_canary_is_judged_by_copies_first() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin(|canary| {
                let analysis = canary["spec"]["analysis"].as_object_mut().unwrap();
                analysis.retain(|key, _| key != "stepWeight" && key != "maxWeight");
                analysis.insert("stepWeights".to_owned(), json!([10, 50]));
                analysis.insert("mirror".to_owned(), json!(true));
                analysis.insert("mirrorWeight".to_owned(), json!(40));
            })
            .await;
        world.load_heavily();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the copies", || world.status("podinfo")["iterations"] == 1).await;
        let route = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap()["spec"]["http"][0].clone();
        assert_eq!(
            (&route["mirror"]["host"], &route["mirrorPercentage"]["value"]),
            (&json!("podinfo-canary"), &json!(40))
        );
        assert_eq!(world.answered_by("podinfo"), 0.0);
        let expected = [
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 0",
            "Advance podinfo.test canary weight 10",
            "Advance podinfo.test canary weight 50",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        assert_eq!(world.released().await, expected, "{}", world.story());
        world.assert_undisturbed();
    });
}
