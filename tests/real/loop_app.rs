//! An application behind the gateway, its users, and its releases.

use std::time::Duration;

use aviary_loadtest::users::{self, Report, Users};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::loop_evidence::{Logs, Routes, Shares, Waits};
use super::{GATEWAY, api, canary, create_through, deployment, eventually, get, now, set_image};

/// Aviary's shortest, as Flagger's.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// From a decision until Envoy does as decided, on a machine that runs what is to run; see [`Waits::excuse`].
const LIMIT: Duration = Duration::from_millis(200);
/// Envoy's workers hear of routes after its main thread, which says since when they are in force.
const WORKERS: Duration = Duration::from_millis(50);

/// Where everything happens.
pub struct Scene {
    pub client: Client,
    pub routes: Routes,
    pub logs: Logs,
    pub waits: Waits,
}

/// A Deployment, its Canary and its users.
pub struct App<'a> {
    scene: &'a Scene,
    name: &'static str,
    rate: f64,
    users: Users,
}

/// A weight, from the decision to the next one.
pub struct Step {
    pub weight: u64,
    /// When Aviary set about writing the routes, by its own log: the first effect of the decision, before it has left the
    /// process. The first write since the weight before, also if it was not the one that succeeded.
    decided: Timestamp,
    /// Since when Envoy does as decided.
    in_force: Timestamp,
}

/// What a bad release has cost its users.
pub struct Cost {
    /// Failed requests until the check that decided.
    pub by_rule: u64,
    /// Those after it.
    pub by_aviary: u64,
    /// From the first request at the new version to the deciding check.
    pub rule_took: Duration,
    /// From the deciding check until Envoy sent nobody to the new version.
    pub aviary_took: Duration,
}

fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).expect("what follows is later")
}

pub fn host(name: &str) -> String {
    format!("{name}.example.com")
}

/// The canary of an application of this name that is reached by the gateway.
pub fn canary_of(name: &str, weights: &[u64], threshold: u32) -> Value {
    let mut object = canary("test", name);
    object["spec"]["service"] = json!({
        "port": 80, "targetPort": 9898, "gateways": ["istio-system/public-gateway"], "hosts": [host(name)],
    });
    object["spec"]["analysis"] = json!({
        "interval": "10s", "threshold": threshold, "stepWeights": weights,
        "metrics": [
            {"name": "request-success-rate", "interval": "10s", "thresholdRange": {"min": 99}},
            // How quick answers are, is the subject of other tests, and depends on what else the machine does.
            {"name": "request-duration", "interval": "10s", "thresholdRange": {"max": 60_000}},
        ],
    });
    object
}

impl<'a> App<'a> {
    /// With a Canary from the beginning. Its users come when it can be reached.
    pub async fn new(scene: &'a Scene, name: &'static str, rate: f64, weights: &[u64], threshold: u32) -> App<'a> {
        create_through(scene.client.clone(), deployment("test", name, &format!("{name}:1.0.0"))).await;
        create_through(scene.client.clone(), canary_of(name, weights, threshold)).await;
        let app = App::of_users(scene, name, rate).await;
        app.is_initialized().await;
        app
    }

    /// Of what is there. Its users come when it can be reached.
    pub async fn of_users(scene: &'a Scene, name: &'static str, rate: f64) -> App<'a> {
        let asking = reqwest::Client::new();
        eventually(&format!("{name} answers"), async || {
            let answer = asking.get(GATEWAY).header("host", host(name)).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        let users = users::Options::new(GATEWAY.parse().unwrap(), rate).unwrap().host(host(name));
        App { scene, name, rate, users: Users::start(users).unwrap() }
    }

    fn objects(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        api(self.scene.client.clone(), group, version, kind, Some("test"))
    }

    pub fn canaries(&self) -> Api<DynamicObject> {
        self.objects("flagger.app", "v1beta1", "Canary")
    }

    pub fn virtual_services(&self) -> Api<DynamicObject> {
        self.objects("networking.istio.io", "v1", "VirtualService")
    }

    pub async fn phase(&self) -> Option<String> {
        get(&self.canaries(), self.name).await?["status"]["phase"].as_str().map(str::to_owned)
    }

    async fn is_in(&self, phase: &str) {
        eventually(&format!("{} is {phase}", self.name), async || self.phase().await.as_deref() == Some(phase)).await;
    }

    /// Bootstrapped, and the pods that were there before are gone.
    pub async fn is_initialized(&self) {
        self.is_in("Initialized").await;
        self.are_pods_of(&format!("{}-primary", self.name), None).await;
    }

    /// Waits until these are all the pods of this application, those that drain included.
    pub async fn are_pods_of(&self, workload: &str, image: Option<&str>) {
        let (target, primary) = (self.name, format!("{}-primary", self.name));
        let pods = self.objects("", "v1", "Pod");
        eventually(&format!("all pods of {target} are those of {workload}, {image:?}"), async || {
            let all = pods.list(&ListParams::default().labels(&format!("app in ({target},{primary})"))).await.unwrap();
            let is_one = |pod: &DynamicObject| {
                pod.metadata.labels.as_ref().is_some_and(|labels| labels["app"] == workload)
                    && image.is_none_or(|image| pod.data["spec"]["containers"][0]["image"] == image)
            };
            all.items.len() == 2 && all.items.iter().all(is_one)
        })
        .await;
        // Their users go on for a second: what the pods have lost by going shows by then.
        let soon = self.users.elapsed() + Duration::from_secs(1);
        self.users.until(|_| self.users.elapsed() >= soon).await;
    }

    /// What share each Service gets at this weight.
    fn shares(&self, weight: u64) -> Shares {
        let sides = [("canary", weight), ("primary", 100 - weight)];
        let with_users = sides.into_iter().filter(|(_, share)| *share > 0);
        with_users.map(|(side, share)| (format!("{}-{side}", self.name), share)).collect()
    }

    pub async fn in_force(&self, shares: &Shares, after: Timestamp) -> Timestamp {
        let host = host(self.name);
        let routes = &self.scene.routes;
        eventually(&format!("Envoy sends the users of {} like {shares:?}", self.name), async || {
            routes.since(&host, shares, after).is_some()
        })
        .await;
        routes.since(&host, shares, after).unwrap()
    }

    /// Waits until a weight is in force.
    pub async fn step(&self, weight: u64, after: Timestamp) -> Step {
        let in_force = self.in_force(&self.shares(weight), after).await;
        let writes = self.scene.logs.route_writes(self.name, after);
        let decided = *writes.first().expect("Aviary has written the routes");
        Step { weight, decided, in_force }
    }

    pub async fn set_version(&self, version: &str) {
        set_image(&self.scene.client, self.name, &self.image(version)).await;
    }

    fn image(&self, version: &str) -> String {
        format!("{}:{version}", self.name)
    }

    /// Releases a good version: each weight is followed in time and to its share, and no request is lost until the pods of the
    /// old version and of the canary are gone.
    pub async fn good_release(&self, version: &str, weights: &[u64]) {
        let began = now();
        self.set_version(version).await;
        let mut steps: Vec<Step> = Vec::new();
        for weight in weights {
            let after = steps.last().map_or(began, |step| step.in_force);
            steps.push(self.step(*weight, after).await);
        }
        let back = self.step(0, steps.last().unwrap().in_force).await;
        self.is_in("Succeeded").await;
        self.are_pods_of(&format!("{}-primary", self.name), Some(&self.image(version))).await;
        self.lost_nothing().await;

        // From there on the primary's answers are of the new version, too.
        let said = self.scene.logs.said(self.name, began);
        let copied = said.iter().find(|(_, text)| text.starts_with("Copying")).expect("it is promoted").0;
        let report = self.users.all_until_now().await;
        for (index, step) in steps.iter().enumerate() {
            self.assert_in_time(step, version);
            let until = steps.get(index + 1).map_or(copied, |next| next.decided);
            self.assert_share(step, &report, version, until);
        }
        self.assert_in_time(&back, version);
        let first = report.first_answer(version).unwrap();
        // Until Envoy has it and then, on average, as long as it takes for so many requests to come.
        println!(
            "{} {version}: first answer {:?} after the first decision",
            self.name,
            first.saturating_sub(report.since_start(steps[0].decided))
        );
    }

    /// No request that was due so far has failed, those included that are under way.
    pub async fn lost_nothing(&self) {
        let report = self.users.all_until_now().await;
        println!("{}: {} requests, {} failed", self.name, report.requests(), report.failures());
        assert_eq!(report.failures(), 0, "{}: {:#?}\n{}", self.name, report.first_failures(), self.story());
    }

    /// What Aviary has said, for a failed test.
    fn story(&self) -> String {
        let said = self.scene.logs.said(self.name, Timestamp::UNIX_EPOCH);
        said.iter().fold(String::new(), |story, (at, text)| format!("{story}{at} {text}\n"))
    }

    /// From when on all of Envoy's workers do as its main thread says.
    fn by_all_workers(&self, report: &Report, in_force: Timestamp) -> Duration {
        let soon = in_force + SignedDuration::from_secs(1);
        report.since_start(in_force) + WORKERS + self.scene.waits.excuse(in_force, soon)
    }

    fn assert_in_time(&self, step: &Step, version: &str) {
        let took = since(step.in_force, step.decided);
        let excuse = self.scene.waits.excuse(step.decided, step.in_force);
        println!(
            "{} {version}: weight {} in force after {took:?} (excused by the machine: {excuse:?})",
            self.name, step.weight
        );
        assert!(took <= LIMIT + excuse, "{} {version}: weight {} took {took:?}", self.name, step.weight);
    }

    /// The new version's share of the answers is the weight, within four standard deviations of so many random choices.
    fn assert_share(&self, step: &Step, report: &Report, version: &str, until: Timestamp) {
        let window = self.by_all_workers(report, step.in_force)..report.since_start(until);
        let share = report.share(version, window.clone()).expect("there are answers");
        let wanted = step.weight as f64 / 100.0;
        let requests = self.rate * (window.end.saturating_sub(window.start)).as_secs_f64();
        let deviation = (wanted * (1.0 - wanted) / requests).sqrt();
        println!(
            "{} {version}: weight {}: {:.2} % of {requests:.0} requests, within {:.2}",
            self.name,
            step.weight,
            share * 100.0,
            deviation * 400.0
        );
        assert!(
            (share - wanted).abs() <= 4.0 * deviation,
            "{} {version}: {share} at weight {}",
            self.name,
            step.weight
        );
    }

    /// Releases a version that fails this share of its requests: it is rolled back after `threshold` failed checks, one an
    /// interval, and nobody but those whom the weight led to it loses a request.
    pub async fn bad_release(&self, version: &str, weight: u64, errors: f64, threshold: u32) -> Cost {
        let before = self.users.all_until_now().await.failures();
        let began = now();
        self.set_version(version).await;
        let step = self.step(weight, began).await;
        let back = self.step(0, step.in_force).await;
        self.is_in("Failed").await;
        self.are_pods_of(&format!("{}-primary", self.name), None).await;

        let said = self.scene.logs.said(self.name, began);
        let failed: Vec<_> = said.iter().filter(|(_, text)| text.starts_with("Halt ")).map(|(at, _)| *at).collect();
        assert_eq!(failed.len() as u32, threshold, "{}", self.story());
        let deciding = *failed.last().unwrap();
        let report = self.users.all_until_now().await;
        self.assert_in_time(&step, version);
        self.assert_in_time(&back, version);
        self.assert_share(&step, &report, version, deciding);
        let decided = report.since_start(deciding);
        let end = self.by_all_workers(&report, back.in_force);
        let cost = Cost {
            // One that was due before the release may have been sent after it began.
            by_rule: report.failures_in(Duration::ZERO..decided) - before,
            by_aviary: report.failures_in(decided..Duration::MAX),
            rule_took: since(deciding, step.in_force),
            aviary_took: since(back.in_force, deciding),
        };
        // Each check asks Prometheus, too.
        let rule = INTERVAL * threshold;
        let excuse = self.scene.waits.excuse(step.in_force, deciding);
        // The first interval begins with the weight's decision, which Envoy may hear of after it has begun.
        assert!(since(deciding, step.decided) >= rule, "{:?}", cost.rule_took);
        assert!(cost.rule_took < rule + (LIMIT + excuse) * threshold, "{:?}", cost.rule_took);
        let probability = weight as f64 / 100.0 * errors;
        let expected = self.rate * cost.rule_took.as_secs_f64() * probability;
        let deviation = (expected * (1.0 - probability)).sqrt();
        println!(
            "{} {version}: {} failed within {:?} by the rule (expected {expected:.0} ± {:.0}), {} within {:?} by Aviary",
            self.name,
            cost.by_rule,
            cost.rule_took,
            4.0 * deviation,
            cost.by_aviary,
            cost.aviary_took
        );
        assert!((cost.by_rule as f64 - expected).abs() <= 4.0 * deviation);
        let excuse = self.scene.waits.excuse(deciding, back.in_force);
        assert!(cost.aviary_took <= LIMIT + excuse, "{:?}, of which {excuse:?} are excused", cost.aviary_took);
        // A request that was due before may have been sent after, never the other way round.
        assert_eq!(report.failures_in(end..Duration::MAX), 0, "{:#?}", report.first_failures());
        assert_eq!(
            report.share(version, end..Duration::MAX),
            Some(0.0),
            "requests reach a version that was rolled back"
        );
        assert_only_bad_versions_failed(&report);
        cost
    }

    /// Ends the users; no request but those of bad versions has failed, those included that were under way.
    pub async fn end(self) -> Report {
        let report = self.users.stop().await;
        assert_only_bad_versions_failed(&report);
        report
    }

    /// A moment in which users go on.
    pub async fn pass(&self, time: Duration) {
        let end = now() + SignedDuration::try_from(time).unwrap();
        self.users.until(|_| now() >= end).await;
    }
}

fn assert_only_bad_versions_failed(report: &Report) {
    for totals in report.versions() {
        let is_bad = totals.version.as_deref().is_some_and(|version| version.contains("-err"));
        assert!(is_bad || totals.failures == 0, "{totals:?}: {:#?}", report.first_failures());
    }
}
