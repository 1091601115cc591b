//! Session affinity: clients stay on their side of a weighted canary.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::{World, in_virtual_time};

fn sticky(canary: &mut Value) {
    canary["spec"]["analysis"]["sessionAffinity"] =
        json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck", "path": "/"});
}

impl World {
    fn routes(&self) -> Vec<Value> {
        let routes = self.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("exists")["spec"]["http"].clone();
        routes.as_array().unwrap().clone()
    }

    fn cookie(&self, field: &str) -> String {
        self.status("podinfo")[field].as_str().unwrap_or_default().to_owned()
    }

    /// Clients who send this cookie, and nobody else; who answers them within nine seconds.
    async fn answers_to(&self, cookie: &str) -> Vec<String> {
        self.traffic.set_load("test", "podinfo", 0.0);
        let headers = BTreeMap::from([("Cookie".to_owned(), format!("lang=en; {cookie}"))]);
        self.traffic.set_audience_load("test", "podinfo", &headers, 100.0);
        let before = self.traffic.report("test", "podinfo");
        self.pass(Duration::from_secs(2)).await;
        let after = self.traffic.report("test", "podinfo");
        self.traffic.set_audience_load("test", "podinfo", &headers, 0.0);
        self.traffic.set_load("test", "podinfo", 2000.0);
        let answered = |name: &&String| after.workload(name).requests > before.workload(name).requests;
        after.workloads.keys().filter(answered).cloned().collect()
    }
}

#[test]
fn clients_stay_on_their_side_for_the_run_and_are_released_afterwards() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(sticky).await;
        world.load_heavily();
        assert_eq!(world.routes().len(), 1, "nobody has a cookie yet");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(10).await;
        let (canary, primary) = (world.cookie("sessionAffinityCookie"), world.cookie("primarySessionAffinityCookie"));
        assert!(canary.starts_with("canary-ck=") && primary.starts_with("primary-ck="), "{canary} {primary}");
        let set = world.routes()[2]["route"][1]["headers"]["response"]["add"]["Set-Cookie"].clone();
        assert_eq!(set, format!("{canary}; Max-Age=86400; Path=/"));
        assert_eq!(world.answers_to(&canary).await, ["podinfo"]);
        assert_eq!(world.answers_to(&primary).await, ["podinfo-primary"]);
        world.wait_for_weight(30).await;
        assert_eq!(world.cookie("sessionAffinityCookie"), canary);

        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.cookie("previousSessionAffinityCookie"), canary);
        assert_eq!(
            (world.cookie("sessionAffinityCookie").as_str(), world.cookie("primarySessionAffinityCookie").as_str()),
            ("", "")
        );
        let routes = world.routes();
        let forget = routes[0]["headers"]["response"]["add"]["Set-Cookie"].clone();
        assert_eq!((routes.len(), forget), (2, json!(format!("{canary}; Max-Age=-1; Path=/"))));
        assert_eq!(world.answers_to(&canary).await, ["podinfo-primary"]);
        world.assert_undisturbed();

        // The next run has another cookie.
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_weight(10).await;
        assert_ne!(world.cookie("sessionAffinityCookie"), canary);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.assert_undisturbed();
    });
}

/// An idle canary costs nothing, with whatever is left of its cookies.
#[test]
fn the_rule_that_takes_a_cookie_back_is_no_drift() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(sticky).await;
        world.load_heavily();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(crate::support::AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");
    });
}
