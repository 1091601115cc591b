//! The users of a world: what they create, release, do meanwhile and delete.

use std::time::Duration;

use anyhow::Context;
use aviary::embedded;
use aviary_crds::duration::format_go_duration;
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::{ControllerOptions, PodDetail, Utilisation};
use aviary_sim::store::{GroupKind, kinds};
use aviary_sim::traffic::{Behaviour, TrafficOptions};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::chaos::USER;
use crate::chaos::gates::Gates;
use crate::chaos::story::{Change, Deed, Farewell, Gate, INSIDER, Quality, Release, Strategy, Tale, config_name};
use crate::chaos::troubles::Trouble;
use crate::ending::{self, Expected};
use crate::ledger::Ledger;
use crate::objects::{self, Name, api, create};

/// Requests per second and canary: so many that the first check of any weight has two scrapes to judge by.
const LOAD: f64 = 2000.0;
/// Usage of autoscaled pods in percent: far from what an autoscaler acts on.
const USAGE: u32 = 50;
/// After a release was taken back, it is waited for so long that the controller has noticed even if it was dead or blind
/// meanwhile: whether it had begun to analyse it is a matter of moments.
const TAKEN_BACK: Duration = Duration::from_secs(300);

/// A cluster and its users.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) gates: Gates,
    user: Client,
    ledger: Ledger,
    metrics_lie: bool,
}

impl World {
    /// A cluster with everything that users create.
    pub(super) async fn new(story: u64, trouble: Trouble, tales: &[Tale]) -> anyhow::Result<World> {
        // Pods as objects cost most of the time; what they add is tried in some of the worlds.
        let pods = if story.is_multiple_of(8) { PodDetail::Objects } else { PodDetail::CountsOnly };
        let utilisation = Utilisation::default();
        let controllers = ControllerOptions { pods, utilisation: utilisation.clone(), ..ControllerOptions::default() };
        let cluster = Cluster::new(ClusterOptions {
            controllers: Some(controllers),
            logged_calls: 0,
            traffic: mesh(story),
            // The same uids in all worlds of a story: names and labels follow from them.
            ..embedded::cluster_options(story)
        });
        let traffic = cluster.traffic();
        traffic.set_behaviour(Quality::Failing.suffix(), Behaviour::failing(0.1));
        traffic.set_behaviour(Quality::Broken.suffix(), Behaviour::failing(1.0));
        traffic.set_behaviour(Quality::Slow.suffix(), Behaviour::slow(1000.0, 2000.0));
        let user = cluster.client(USER);
        for tale in tales {
            let Name { namespace, name } = &tale.name;
            if cluster.store().get(&kinds::NAMESPACE, "", namespace).is_none() {
                create(&user, &objects::namespace(namespace)).await?;
            }
            traffic.set_load(namespace, name, LOAD);
            if tale.shape.strategy == Strategy::AbTest {
                let (header, value) = INSIDER;
                let headers = [(header.to_owned(), value.to_owned())].into();
                traffic.set_audience_load(namespace, name, &headers, LOAD);
            }
            if tale.shape.is_scaled {
                utilisation.set_utilisation(namespace, name, USAGE);
                utilisation.set_utilisation(namespace, format!("{name}-primary"), USAGE);
            }
            for object in &tale.objects {
                create(&user, object).await?;
            }
        }
        let ledger = Ledger::follow(cluster.store());
        // Pods start.
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(World { cluster, gates: Gates::default(), user, ledger, metrics_lie: trouble.lies() })
    }

    /// Makes the releases of one canary, each after the last has ended, and deletes it if that is how the tale ends. The
    /// phases in which the releases ended.
    pub(super) async fn act(&self, tale: &Tale) -> anyhow::Result<Vec<String>> {
        self.ledger.wait_for(&tale.name, "Initialized").await;
        let mut phases = Vec::new();
        for (index, release) in tale.releases.iter().enumerate() {
            tokio::time::sleep(release.pause).await;
            let phase = self.release(tale, index, &promoted_image(tale, &phases)).await?;
            let may_end = release.may_end(&phase, self.metrics_lie, tale.shape.skips_analysis);
            anyhow::ensure!(may_end, "{} ended as {phase}", release.image);
            phases.push(phase);
        }
        if let Some(farewell) = &tale.farewell {
            tokio::time::sleep(TAKEN_BACK).await;
            self.part(tale, farewell).await?;
        }
        Ok(phases)
    }

    async fn release(&self, tale: &Tale, index: usize, promoted: &str) -> anyhow::Result<String> {
        let Tale { name, releases, .. } = tale;
        let release = &releases[index];
        self.gates.close(name);
        if let Some((image, time)) = &release.withdrawn {
            self.set_image(name, image).await?;
            tokio::time::sleep(*time).await;
            self.set_image(name, promoted).await?;
            tokio::time::sleep(TAKEN_BACK).await;
        }
        let ended = self.ledger.endings(name).len();
        if let Some((image, time)) = &release.replaces {
            self.set_image(name, image).await?;
            tokio::time::sleep(*time).await;
        }
        match release.change {
            Change::Image => self.set_image(name, &release.image).await?,
            Change::Config => {
                let patch = json!({"data": {"greeting": format!("release {index}")}});
                self.patch(&kinds::CONFIG_MAP, "v1", &name.namespace, &config_name(name), Patch::Merge(patch)).await?;
            }
        }
        self.do_deeds(name, release).await?;
        Ok(self.ledger.wait_for_ending(name, ended + 1).await)
    }

    async fn do_deeds(&self, name: &Name, release: &Release) -> anyhow::Result<()> {
        let start = tokio::time::Instant::now();
        for (at, deed) in &release.deeds {
            tokio::time::sleep_until(start + *at).await;
            let spec = match deed {
                Deed::Open(gate) => {
                    self.gates.open(name, *gate);
                    continue;
                }
                Deed::Suspend => json!({"suspend": true}),
                Deed::Resume => json!({"suspend": false}),
                Deed::Interval(seconds) => {
                    json!({"analysis": {"interval": format_go_duration(Duration::from_secs(*seconds))}})
                }
                Deed::Window(seconds) => {
                    let canary = self.get(&kinds::CANARY, name, "").unwrap_or_default();
                    let mut metrics = canary["spec"]["analysis"]["metrics"].clone();
                    for metric in metrics.as_array_mut().into_iter().flatten() {
                        metric["interval"] = json!(format!("{seconds}s"));
                    }
                    json!({"analysis": {"metrics": metrics}})
                }
            };
            self.patch_canary(name, spec).await?;
        }
        Ok(())
    }

    /// Deletes the canary.
    async fn part(&self, tale: &Tale, farewell: &Farewell) -> anyhow::Result<()> {
        let Tale { name, .. } = tale;
        if let Some(image) = &farewell.during {
            self.gates.close(name);
            self.gates.open(name, Gate::Rollout);
            self.set_image(name, image).await?;
            let is_under_way = || {
                let canary = self.get(&kinds::CANARY, name, "").unwrap_or_default();
                let target = self.get(&kinds::DEPLOYMENT, name, "").unwrap_or_default();
                canary["status"]["phase"] == "Progressing" && target["spec"]["replicas"] == 2
            };
            self.wait_until(is_under_way).await;
        }
        let canaries = api(&self.user, "flagger.app", "v1beta1", "Canary", &name.namespace);
        canaries.delete(&name.name, &DeleteParams::default()).await.context("delete the canary")?;
        self.wait_until(|| self.get(&kinds::CANARY, name, "").is_none()).await;
        Ok(())
    }

    async fn wait_until(&self, condition: impl Fn() -> bool) {
        let mut changes = self.cluster.store().subscribe();
        while !condition() && changes.recv().await.is_some() {}
    }

    async fn set_image(&self, name: &Name, image: &str) -> anyhow::Result<()> {
        let patch = Patch::Strategic(objects::image_patch(image));
        self.patch(&kinds::DEPLOYMENT, "v1", &name.namespace, &name.name, patch).await
    }

    async fn patch_canary(&self, name: &Name, spec: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.patch(&kinds::CANARY, "v1beta1", &name.namespace, &name.name, patch).await
    }

    async fn patch(
        &self,
        kind: &GroupKind,
        version: &str,
        namespace: &str,
        name: &str,
        patch: Patch<Value>,
    ) -> anyhow::Result<()> {
        let objects = api(&self.user, &kind.group, version, &kind.kind, namespace);
        let patched = objects.patch(name, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("patch {} {namespace}/{name}", kind.kind))?;
        Ok(())
    }

    fn get(&self, kind: &GroupKind, name: &Name, suffix: &str) -> Option<std::sync::Arc<Value>> {
        self.cluster.store().get(kind, &name.namespace, &format!("{}{suffix}", name.name))
    }

    /// What is otherwise than it should be after all releases.
    pub(super) fn problems(&self, tale: &Tale, phases: &[String]) -> Vec<String> {
        if let Some(farewell) = &tale.farewell {
            let serves = farewell.during.is_some() || farewell.reverts;
            return ending::problems_of_deleted(&self.cluster, &tale.name, if serves { 2 } else { 0 });
        }
        let expected = Expected {
            phase: phases.last().map_or("Initialized", String::as_str),
            image: &promoted_image(tale, phases),
            requests_fail: tale.fails_requests(),
        };
        ending::problems(&self.cluster, &tale.name, &expected)
    }

    /// Statuses and events, for whoever has to find out what went wrong.
    pub(super) fn story(&self, tales: &[Tale]) -> String {
        let mut story = String::new();
        for tale in tales {
            story.push_str(&format!("{tale}\n"));
        }
        for canary in self.cluster.store().list(&kinds::CANARY, None) {
            story.push_str(&format!("{}: {}\n", canary["metadata"]["name"], canary["status"]));
        }
        for event in self.cluster.store().list(&kinds::EVENT, None) {
            if event["involvedObject"]["kind"] == "Canary" {
                let name = &event["involvedObject"]["name"];
                story.push_str(&format!("{} {name} {}\n", event["firstTimestamp"], event["message"]));
            }
        }
        story
    }
}

/// How late the proxies hear of routes and of pods, and how long pods that end go on answering. In half of the stories they
/// hear at once, as in a cluster without a mesh of its own; in the others as late as Istio's do, or almost as late as the
/// settings of the controller allow for (a second for pods that came, three for those that go), each alone and both.
fn mesh(story: u64) -> TrafficOptions {
    let (route, endpoint, drain) = match story % 8 {
        1 => (110, 110, 5000),
        3 => (900, 10, 0),
        5 => (10, 900, 0),
        7 => (900, 900, 0),
        _ => (0, 0, 0),
    };
    let [route_lag, endpoint_lag, drain] = [route, endpoint, drain].map(Duration::from_millis);
    // By default Prometheus scrapes exactly twice in the shortest interval. What the mesh takes of it must leave two scrapes, or
    // it is a matter of their phase whether the first check of a good release has a rate to judge by.
    let scrape_interval = if route_lag.is_zero() { Duration::from_secs(5) } else { Duration::from_secs(4) };
    TrafficOptions { scrape_interval, route_lag, endpoint_lag, drain, ..TrafficOptions::default() }
}

/// What the primary runs after releases that ended in these phases.
fn promoted_image(tale: &Tale, phases: &[String]) -> String {
    let promoted = tale.releases.iter().zip(phases).rfind(|(_, phase)| *phase == "Succeeded");
    promoted.map_or_else(|| objects::image(0, ""), |(release, _)| release.image.clone())
}

#[cfg(test)]
mod tests {
    use super::mesh;
    use crate::chaos::story::SHORTEST_INTERVAL;

    #[test]
    fn the_first_check_has_two_scrapes_in_the_latest_mesh_too() {
        for story in 0..8 {
            let options = mesh(story);
            let judged = SHORTEST_INTERVAL - options.route_lag;
            assert!(judged >= options.scrape_interval * 2, "story {story}: {options:?}");
        }
    }
}
