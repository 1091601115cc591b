//! What users do in one world: canaries, and the revisions that they release. Decided by the seed alone.

mod release;
mod shape;

use std::fmt;

use serde_json::{Value, json};

use crate::objects::{self, Name};
use crate::random::Random;

pub(super) use release::{Change, Deed, Quality, Release};
#[cfg(test)]
pub(super) use shape::SHORTEST_INTERVAL;
pub(super) use shape::{GATES, Gate, INSIDER, Shape, Strategy};

/// Canaries of one world: enough that one's trouble could show in another, few enough that a world that fails can be read.
const CANARIES: usize = 8;
/// Namespaces that they share.
const NAMESPACES: usize = 3;
/// Releases of each canary at most.
const MOST_RELEASES: u64 = 4;

/// One canary and its releases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tale {
    pub(super) name: Name,
    pub(super) shape: Shape,
    /// What the user creates, in order; the canary last.
    pub(super) objects: Vec<Value>,
    pub(super) releases: Vec<Release>,
    pub(super) farewell: Option<Farewell>,
}

/// How a canary is deleted, after its releases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Farewell {
    /// In the middle of a release of this image; else at rest.
    pub(super) during: Option<String>,
    /// Whether the target gets its replicas back.
    pub(super) reverts: bool,
}

impl Tale {
    /// Whether users get requests failed by a new version.
    pub(super) fn fails_requests(&self) -> bool {
        self.releases.iter().any(|release| matches!(release.quality, Quality::Failing | Quality::Broken))
    }

    /// Releases that ended otherwise than they should have, had the metrics told the truth.
    pub(super) fn misjudged(&self, phases: &[String]) -> u64 {
        let ends_well =
            |(release, phase): &(&Release, &String)| release.may_end(phase, false, self.shape.skips_analysis);
        self.releases.iter().zip(phases).filter(|end| !ends_well(end)).count() as u64
    }

    /// Releases that end, a deletion in the middle of one included.
    pub(super) fn rollouts(&self) -> u64 {
        let deleted = self.farewell.as_ref().is_some_and(|farewell| farewell.during.is_some());
        self.releases.len() as u64 + u64::from(deleted)
    }
}

/// For whoever has to find out what went wrong.
impl fmt::Display for Tale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tale { name, shape, releases, farewell, .. } = self;
        write!(formatter, "{}: {shape:?}", name.name)?;
        for release in releases {
            write!(formatter, "\n  {release:?}")?;
        }
        match farewell {
            Some(farewell) => write!(formatter, "\n  {farewell:?}"),
            None => Ok(()),
        }
    }
}

/// Far longer than pods take to start, and shorter than the API server misbehaves at times: a deadline that passes while no
/// watch gets through must fail nobody who has become ready.
const DEADLINE: u32 = 60;

/// The tales of a world.
pub(super) fn tales(random: &mut Random) -> Vec<Tale> {
    (0..CANARIES).map(|index| tale(index, random)).collect()
}

fn tale(index: usize, random: &mut Random) -> Tale {
    let name = objects::name(index, NAMESPACES);
    let shape = Shape::new(random);
    let count = 1 + random.below(MOST_RELEASES);
    let releases = release::releases(count, &shape, random);
    let farewell = (random.below(6) == 0).then(|| {
        // A run that nothing holds up is over at a moment of its own.
        let during = !shape.skips_analysis && random.below(4) > 0;
        let number = u32::try_from(count * 3 + 1).unwrap_or(u32::MAX);
        Farewell { during: during.then(|| objects::image(number, "")), reverts: shape.reverts }
    });
    // A target that is given back has to serve before the canary goes. One that never will keeps it for ever, and its users on
    // the primary, until somebody mends it.
    let serves = releases.last().is_none_or(|release| !matches!(release.quality, Quality::Unready | Quality::Crashing));
    let farewell = farewell.filter(|farewell| serves || !farewell.reverts || farewell.during.is_some());
    let mut objects = Vec::new();
    let mut deployment = objects::deployment(&name);
    if shape.has_config {
        objects.push(config(&name));
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        container["envFrom"] = json!([{"configMapRef": {"name": config_name(&name)}}]);
    }
    objects.push(deployment);
    if shape.is_scaled {
        objects.push(if shape.is_scaled_by_keda() { scaled_object(&name) } else { autoscaler(&name) });
    }
    let mut canary = shape.canary(&name);
    canary["spec"]["progressDeadlineSeconds"] = DEADLINE.into();
    objects.push(canary);
    Tale { name, shape, objects, releases, farewell }
}

/// The ConfigMap that the pods of a target read.
pub(super) fn config_name(name: &Name) -> String {
    format!("{}-settings", name.name)
}

fn config(name: &Name) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": name.namespace, "name": config_name(name)},
        "data": {"greeting": "first"},
    })
}

/// The same, of KEDA's; it stays there whatever a Prometheus says that lies.
fn scaled_object(name: &Name) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "scaleTargetRef": {"name": name}, "pollingInterval": 10, "minReplicaCount": 2, "maxReplicaCount": 2,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": "http://prometheus:9090", "query": format!("sum(jobs{{app=\"{name}\"}})"), "threshold": "5",
            }}],
        },
    })
}

/// Its load does not change, so it stays at the two replicas that every target has.
fn autoscaler(name: &Name) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }],
        },
    })
}
