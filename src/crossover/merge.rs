//! Weights of TrafficSplits in Envoy's route files. What cannot be used changes nothing and is told.

use std::collections::BTreeMap;

use aviary_providers::traffic::smi;
use serde_json::{Map, Value};

/// Files by their names.
pub(crate) type Files = BTreeMap<String, String>;

/// What is known of a TrafficSplit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Split {
    /// Its own name.
    pub(crate) name: String,
    /// `spec.service`; empty where the object was never seen.
    service: String,
    /// Weights of Envoy by backend; `None` where none were usable.
    weights: Option<Vec<(String, u32)>>,
}

/// What to write, and what to tell.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(crate) files: Files,
    pub(crate) problems: Vec<String>,
}

impl Split {
    /// A split that nobody has seen.
    pub(crate) fn unseen(name: &str) -> Split {
        Split { name: name.to_owned(), ..Split::default() }
    }

    /// Takes what the object says now; weights that cannot be used leave those that were.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) fn take(&mut self, object: &Value) -> Result<(), String> {
        let service = object.pointer("/spec/service").and_then(Value::as_str).unwrap_or_default();
        service.clone_into(&mut self.service);
        let backends = object.pointer("/spec/backends").and_then(Value::as_array);
        let mut thousandths = Vec::new();
        for (index, backend) in backends.into_iter().flatten().enumerate() {
            let weight = &backend["weight"];
            let Some(found) = smi::thousandths(weight) else {
                return Err(format!(
                    "spec.backends[{index}].weight of TrafficSplit {}: {weight} is no weight; write a whole number, or \
                     thousandths like 500m. The weights in force stay",
                    self.name
                ));
            };
            thousandths.push((backend["service"].as_str().unwrap_or_default().to_owned(), found));
        }
        if thousandths.iter().all(|(_, weight)| *weight == 0) {
            return Err(format!(
                "spec.backends of TrafficSplit {}: all weights are 0, with which Envoy would refuse every request; give one \
                 backend a weight. The weights in force stay",
                self.name
            ));
        }
        // Envoy's weights are whole numbers, and only their proportion matters.
        let unit = if thousandths.iter().all(|(_, weight)| weight % 1000 == 0) { 1000 } else { 1 };
        let sum: u64 = thousandths.iter().fold(0, |sum, (_, weight)| sum.saturating_add(weight / unit));
        if sum > u64::from(u32::MAX) {
            return Err(format!("spec.backends of TrafficSplit {}: the weights are too large for Envoy", self.name));
        }
        let weights =
            thousandths.into_iter().map(|(service, weight)| (service, u32::try_from(weight / unit).unwrap_or(0)));
        self.weights = Some(weights.collect());
        Ok(())
    }

    fn is_for(&self, host: &Value) -> bool {
        let named = [self.service.as_str(), self.name.as_str()];
        let domains = host["domains"].as_array();
        host["name"].as_str().is_some_and(|name| named.contains(&name))
            || domains.into_iter().flatten().any(|domain| !self.service.is_empty() && *domain == *self.service)
    }
}

/// The files of a ConfigMap with the weights of its splits. `current` are the files in place, whose weights hold where a split
/// has none. Files without a virtual host of a split stay as they are.
pub(crate) fn merge(template: &Files, splits: &[Split], current: &Files) -> Merged {
    let mut merged = Merged::default();
    let mut found = vec![Vec::new(); splits.len()];
    let mut hosts = Vec::new();
    for (name, text) in template {
        let mut document: Value = match serde_saphyr::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                if !splits.is_empty() {
                    merged.problems.push(format!("{name}: not YAML, and written as it is: {error}"));
                }
                merged.files.insert(name.clone(), text.clone());
                continue;
            }
        };
        let present = current.get(name).and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
        let mut is_routed = false;
        for host in virtual_hosts(&mut document) {
            hosts.push(host["name"].as_str().unwrap_or_default().to_owned());
            for (index, split) in splits.iter().enumerate() {
                if !split.is_for(host) {
                    continue;
                }
                is_routed = true;
                let kept = present.as_ref().and_then(|present| weights_of(present, &host["name"]));
                let Some(weights) = split.weights.clone().or(kept) else { continue };
                found[index].extend(set_weights(host, &weights));
            }
        }
        if is_routed {
            stamp(&mut document);
            match serde_saphyr::to_string(&document) {
                Ok(text) => merged.files.insert(name.clone(), text),
                Err(error) => {
                    merged.problems.push(format!("{name}: cannot be written: {error}"));
                    continue;
                }
            };
        } else {
            merged.files.insert(name.clone(), text.clone());
        }
    }
    for (split, found) in splits.iter().zip(found) {
        let Some(weights) = &split.weights else { continue };
        let missing: Vec<&str> = weights
            .iter()
            .map(|(service, _)| service.as_str())
            .filter(|name| !found.iter().any(|one| one == name))
            .collect();
        if missing.len() == weights.len() {
            merged.problems.push(format!(
                "TrafficSplit {}: no weighted virtual host is named {} or {}, so its weights change nothing; there are: {}",
                split.name,
                split.service,
                split.name,
                hosts.join(", ")
            ));
        } else if !missing.is_empty() {
            merged.problems.push(format!("TrafficSplit {}: no cluster is named {}", split.name, missing.join(" or ")));
        }
    }
    merged
}

fn list<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn virtual_hosts(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    list(document, "resources").flat_map(|resource| list(resource, "virtual_hosts"))
}

fn clusters(host: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    list(host, "routes")
        .filter_map(|route| route.get_mut("route")?.get_mut("weighted_clusters")?.get_mut("clusters")?.as_array_mut())
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn is_named(cluster: &Map<String, Value>, service: &str) -> bool {
    cluster.get("name").and_then(Value::as_str).is_some_and(|name| name == service || name == service.replace('.', "_"))
}

/// Writes weights into a virtual host, unless all clusters would have none. Returns the backends that have a cluster.
fn set_weights(host: &mut Value, weights: &[(String, u32)]) -> Vec<String> {
    let mut changed = host.clone();
    let mut found = Vec::new();
    for cluster in clusters(&mut changed) {
        if let Some((service, weight)) = weights.iter().find(|(service, _)| is_named(cluster, service)) {
            cluster.insert("weight".into(), (*weight).into());
            found.push(service.clone());
        }
    }
    let mut routes = changed["routes"].as_array_mut().into_iter().flatten();
    let is_servable = |route: &mut Value| {
        let clusters = route.pointer("/route/weighted_clusters/clusters").and_then(Value::as_array);
        clusters.is_none_or(|all| all.iter().any(|one| one["weight"].as_u64().unwrap_or(0) > 0))
    };
    if routes.all(is_servable) {
        *host = changed;
    }
    found
}

/// The weights that a virtual host of a file has.
fn weights_of(document: &Value, host: &Value) -> Option<Vec<(String, u32)>> {
    let mut document = document.clone();
    let present = virtual_hosts(&mut document).find(|present| present["name"] == *host)?;
    let weights = clusters(present).filter_map(|cluster| {
        Some((cluster.get("name")?.as_str()?.to_owned(), u32::try_from(cluster.get("weight")?.as_u64()?).ok()?))
    });
    Some(weights.collect())
}

/// Names the content, so that Envoy tells which file it has.
fn stamp(document: &mut Value) {
    let Some(fields) = document.as_object_mut() else { return };
    fields.remove("version_info");
    let text = Value::Object(fields.clone()).to_string();
    // FNV-1a: the same in every replica and version, unlike the standard library's hasher. It tells versions apart and keeps
    // nobody out.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The letter keeps YAML from reading a number.
    fields.insert("version_info".into(), format!("v{hash:016x}").into());
}

#[cfg(test)]
mod tests;
