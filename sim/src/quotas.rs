//! ResourceQuotas: what a namespace uses of its limits and what would be too much, after the evaluators and the admission plugin
//! of Kubernetes (`pkg/quota/v1`, `apiserver/pkg/admission/plugin/resourcequota`).
//!
//! New objects are counted; changes of objects are not checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::apiserver::admission::qos_class;
use crate::quantity;
use crate::store::{GroupKind, ResourceType, StatusError, kinds};

/// Kinds with a name of their own in quotas.
const COUNTED: [(&str, GroupKind); 7] = [
    ("pods", kinds::POD),
    ("services", kinds::SERVICE),
    ("configmaps", kinds::CONFIG_MAP),
    ("secrets", kinds::SECRET),
    ("resourcequotas", kinds::RESOURCE_QUOTA),
    ("replicationcontrollers", GroupKind::known("", "ReplicationController")),
    ("persistentvolumeclaims", kinds::PERSISTENT_VOLUME_CLAIM),
];

/// What containers must say of themselves where a quota limits it (`validationSet`).
const SAID_BY_CONTAINERS: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Scopes that are looked at.
pub(crate) const SCOPES: [&str; 4] = ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"];

/// A namespace whose objects are counted.
pub(crate) struct Contents<'a> {
    /// Its objects of a kind.
    pub(crate) list: &'a dyn Fn(&GroupKind) -> Vec<Arc<Value>>,
    /// The kind that is served under a group and a plural.
    pub(crate) kind_of: &'a dyn Fn(&str, &str) -> Option<GroupKind>,
}

/// What a quota limits: objects of one kind, or what they ask for.
struct Limited<'a> {
    kind: GroupKind,
    measure: Measure<'a>,
}

enum Measure<'a> {
    Objects,
    ServicesOfType(&'static str),
    Storage,
    /// An entry of a container's `requests` or `limits`.
    Compute {
        list: &'static str,
        resource: &'a str,
    },
}

impl Contents<'_> {
    /// How much of each limited resource a namespace uses; nothing of those that nothing here measures.
    pub(crate) fn used<'a>(&self, quota: &'a Value) -> BTreeMap<&'a String, String> {
        let hard = quota["spec"]["hard"].as_object();
        hard.into_iter()
            .flatten()
            .filter_map(|(resource, _)| {
                let limited = match self.limited(resource) {
                    Some(limited) => limited,
                    // A kind that is not there yet has no objects.
                    None if resource.starts_with("count/") => return Some((resource, "0".to_owned())),
                    None => return None,
                };
                Some((resource, self.sum(quota, &limited)))
            })
            .collect()
    }

    /// Why an object may not be created.
    ///
    /// # Errors
    /// 403 in the words of the admission plugin, of the first quota that is in the way.
    pub(crate) fn admit(&self, resource: &ResourceType, name: &str, object: &Value) -> Result<(), StatusError> {
        for quota in (self.list)(&kinds::RESOURCE_QUOTA) {
            if let Some(cause) = self.refusal(&quota, &resource.group_kind, object) {
                return Err(StatusError::forbidden(resource, name, &cause));
            }
        }
        Ok(())
    }

    fn refusal(&self, quota: &Value, kind: &GroupKind, object: &Value) -> Option<String> {
        if !covers(quota, kind, object) {
            return None;
        }
        let quota_name = quota["metadata"]["name"].as_str().unwrap_or_default();
        let hard = quota["spec"]["hard"].as_object()?;
        if *kind == kinds::POD
            && let Some(missing) = unsaid(hard, object)
        {
            return Some(format!("failed quota: {quota_name}: must specify {missing}"));
        }
        let (mut requested, mut used, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for (resource, limit) in hard {
            let Some(limited) = self.limited(resource).filter(|limited| limited.kind == *kind) else { continue };
            let asked = sum(limited.measure.quantities(object).into_iter());
            let taken = self.sum(quota, &limited);
            let limit = limit.as_str().unwrap_or_default();
            let nanos = |text: &str| quantity::nanos(text).unwrap_or(0);
            if nanos(&asked) > 0 && nanos(&taken) + nanos(&asked) > nanos(limit) {
                requested.push(format!("{resource}={asked}"));
                used.push(format!("{resource}={taken}"));
                limits.push(format!("{resource}={limit}"));
            }
        }
        (!requested.is_empty()).then(|| {
            format!(
                "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
                requested.join(","),
                used.join(","),
                limits.join(",")
            )
        })
    }

    fn sum(&self, quota: &Value, limited: &Limited<'_>) -> String {
        let objects = (self.list)(&limited.kind);
        let counted = objects.iter().filter(|object| covers(quota, &limited.kind, object));
        sum(counted.flat_map(|object| limited.measure.quantities(object)))
    }

    /// What a name in `spec.hard` stands for; `None` for what nothing here measures.
    fn limited<'a>(&self, resource: &'a str) -> Option<Limited<'a>> {
        let of = |kind: GroupKind, measure| Some(Limited { kind, measure });
        if let Some((_, kind)) = COUNTED.iter().find(|(name, _)| *name == resource) {
            return of(kind.clone(), Measure::Objects);
        }
        if let Some(counted) = resource.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return of((self.kind_of)(group, plural)?, Measure::Objects);
        }
        match resource {
            "services.nodeports" => return of(kinds::SERVICE, Measure::ServicesOfType("NodePort")),
            "services.loadbalancers" => return of(kinds::SERVICE, Measure::ServicesOfType("LoadBalancer")),
            "requests.storage" => return of(kinds::PERSISTENT_VOLUME_CLAIM, Measure::Storage),
            _ => {}
        }
        let (list, resource) = place_of(resource);
        matches!(resource, "cpu" | "memory" | "ephemeral-storage")
            .then_some(Limited { kind: kinds::POD, measure: Measure::Compute { list, resource } })
    }
}

impl Measure<'_> {
    fn quantities<'v>(&self, object: &'v Value) -> Vec<&'v str> {
        match self {
            Self::Objects => vec!["1"],
            Self::ServicesOfType(wanted) if object["spec"]["type"] == **wanted => vec!["1"],
            Self::ServicesOfType(_) => Vec::new(),
            Self::Storage => object["spec"]["resources"]["requests"]["storage"].as_str().into_iter().collect(),
            Self::Compute { list, resource } => {
                containers(object).filter_map(|container| container["resources"][*list][*resource].as_str()).collect()
            }
        }
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}

/// Where containers say how much they want: `cpu` alone is what they request.
fn place_of(resource: &str) -> (&'static str, &str) {
    match resource.split_once('.') {
        Some(("requests", measured)) => ("requests", measured),
        Some(("limits", measured)) => ("limits", measured),
        _ => ("requests", resource),
    }
}

/// Whether an object counts for a quota: pods until they have ended, and only those of its scopes; nothing else has scopes.
fn covers(quota: &Value, kind: &GroupKind, object: &Value) -> bool {
    let mut scopes = quota["spec"]["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if *kind != kinds::POD {
        return scopes.next().is_none();
    }
    let spec = &object["spec"];
    let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !has_ended
        && scopes.all(|scope| match scope {
            "Terminating" => spec["activeDeadlineSeconds"].is_number(),
            "NotTerminating" => !spec["activeDeadlineSeconds"].is_number(),
            "BestEffort" => qos_class(spec) == "BestEffort",
            _ => qos_class(spec) != "BestEffort",
        })
}

/// What containers do not say though it is limited: `limits.cpu for: web; limits.memory for: web`.
fn unsaid(hard: &serde_json::Map<String, Value>, pod: &Value) -> Option<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in SAID_BY_CONTAINERS.into_iter().filter(|resource| hard.contains_key(*resource)) {
        let (list, measured) = place_of(resource);
        for container in containers(pod).filter(|container| container["resources"][list][measured].is_null()) {
            missing.entry(resource).or_default().push(container["name"].as_str().unwrap_or_default());
        }
    }
    let texts = missing.into_iter().map(|(resource, mut names)| {
        names.sort_unstable();
        format!("{resource} for: {}", names.join(","))
    });
    let texts: Vec<String> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The sum of quantities, in the suffixes of the first.
fn sum<'a>(quantities: impl Iterator<Item = &'a str>) -> String {
    let quantities: Vec<&str> = quantities.collect();
    let nanos: i128 = quantities.iter().filter_map(|text| quantity::nanos(text).ok()).sum();
    let is_binary = quantities.first().is_some_and(|first| first.ends_with('i'));
    let written = match is_binary && nanos % 1_024_000_000_000 == 0 {
        true => format!("{}Ki", nanos / 1_024_000_000_000),
        false => format!("{nanos}n"),
    };
    quantity::canonical(&written).unwrap_or(written)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::{sum, unsaid};

    #[test]
    fn quantities_add_up_in_their_own_suffixes() {
        let sum_of = |texts: &[&'static str]| sum(texts.iter().copied());
        assert_eq!(sum_of(&[]), "0");
        assert_eq!(sum_of(&["500m", "1"]), "1500m");
        assert_eq!(sum_of(&["500m", "0.5"]), "1");
        assert_eq!(sum_of(&["64Mi", "64Mi"]), "128Mi");
    }

    #[test]
    fn containers_must_say_what_is_limited() {
        let hard = json!({"limits.memory": "1Gi", "cpu": "1", "pods": "3"});
        let hard = hard.as_object().unwrap();
        let pod = json!({"spec": {"containers": [
            {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}},
        ]}});
        assert_eq!(unsaid(hard, &pod).as_deref(), Some("cpu for: b; limits.memory for: a,b"));
    }
}
