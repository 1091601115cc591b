//! Revisions: what tells one pod template from another.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::canonical::{canonical_text, digest, short_digest};

/// Tag of the present way to compute revisions.
const TAG: &str = "aviary-1:";

/// The revision of a pod template: a tag and 16 hex digits of the SHA-256 over its canonical JSON.
///
/// It depends on nothing but the template as the API server stores it, so it survives upgrades of Aviary. (Flagger's
/// depends on the Go structs it was built with: every upgrade looks like a new revision, Q39.)
pub fn revision_of(template: &Value) -> String {
    format!("{TAG}{}", short_digest(&canonical_text(template)))
}

/// Whether a revision was computed by Aviary (any version of it), and not by Flagger.
pub fn is_own_revision(revision: &str) -> bool {
    revision.starts_with("aviary-")
}

/// The value of a primary's `flagger-id`: shaped like a UUID, and always the same for the same canary, revision and
/// configs.
///
/// Version 8 ("custom") marks it as Aviary's; Flagger writes random ones of version 4. The second half depends on
/// nothing but the configs: a promotion that was cut between the copies of the configs and the workload is
/// recognised by it.
pub(super) fn pod_id(canary_uid: &str, revision: &str, configs: &BTreeMap<String, String>) -> String {
    let revision = digest(&format!("{canary_uid}\n{revision}"));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&revision[..8]);
    bytes[8..].copy_from_slice(&config_half(configs));
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn config_half(configs: &BTreeMap<String, String>) -> [u8; 8] {
    let lines: String = configs.iter().map(|(key, checksum)| format!("{key}={checksum}\n")).collect();
    let mut half = [0; 8];
    half.copy_from_slice(&digest(&lines)[..8]);
    // RFC 9562: the variant.
    half[0] = (half[0] & 0x3f) | 0x80;
    half
}

/// Whether Aviary wrote this `flagger-id`.
pub(super) fn is_own_pod_id(id: &str) -> bool {
    id.len() == 36 && id.as_bytes()[14] == b'8'
}

/// Whether one of Aviary's ids was made for these configs.
pub(super) fn is_for_configs(id: &str, configs: &BTreeMap<String, String>) -> bool {
    let hex: String = config_half(configs).iter().map(|byte| format!("{byte:02x}")).collect();
    matches!((id.get(19..23), id.get(24..)), (Some(first), Some(rest)) if first == &hex[..4] && rest == &hex[4..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revisions_are_stable() {
        let template = json!({"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"image": "a:1"}]}});
        let same = json!({"spec": {"containers": [{"env": [], "image": "a:1"}], "volumes": null}, "metadata":
            {"labels": {"app": "podinfo"}, "creationTimestamp": null}});
        let revision = revision_of(&template);
        assert_eq!(revision, revision_of(&same));
        // A literal: a change of the algorithm would start an analysis of every canary in the world.
        assert_eq!(revision, "aviary-1:b2274b4bb1762b58");
        assert!(is_own_revision(&revision) && !is_own_revision("5f56684589"));
    }

    #[test]
    fn pod_ids_tell_whose_they_are_and_which_configs_they_are_for() {
        let configs = |checksum: &str| BTreeMap::from([("configmap/a".to_owned(), checksum.to_owned())]);
        let id = pod_id("uid", "aviary-1:0", &configs("1"));
        assert_eq!(id, pod_id("uid", "aviary-1:0", &configs("1")));
        assert!(is_own_pod_id(&id), "{id}");
        assert!(!is_own_pod_id("f47ac10b-58cc-4372-a567-0e02b2c3d479") && !is_own_pod_id(""));
        let other_revision = pod_id("uid", "aviary-1:1", &configs("1"));
        assert!(other_revision != id && is_for_configs(&other_revision, &configs("1")));
        assert!(is_for_configs(&id, &configs("1")) && !is_for_configs(&id, &configs("2")));
    }
}
