//! Reading fields of untyped objects, and a hash that does not depend on the order of their members.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The label by which a ReplicaSet and its pods name the template they were made from.
pub(super) const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// `kubectl` and the controllers of Kubernetes write hashes in an alphabet without vowels, so that no word appears by chance.
const HASH_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The controller of an object, from its owner references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

pub(super) fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A count of pods. Out-of-range values saturate, as the API server would have refused them.
pub(super) fn count(object: &Value, pointer: &str) -> Option<i32> {
    integer(object, pointer).map(|value| i32::try_from(value).unwrap_or(i32::MAX))
}

pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn strings(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let Some(members) = object.pointer(pointer).and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    members.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

pub(super) fn timestamp(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer)?.parse().ok()
}

pub(super) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|value| !value.is_null())
}

pub(super) fn controller_owner(object: &Value) -> Option<Owner> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| flag(owner, "/controller"))?;
    Some(Owner {
        kind: text(owner, "/kind")?.to_owned(),
        name: text(owner, "/name")?.to_owned(),
        uid: text(owner, "/uid")?.to_owned(),
    })
}

/// The condition of the given type.
pub(super) fn condition<'a>(object: &'a Value, condition_type: &str) -> Option<&'a Value> {
    object
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| text(condition, "/type") == Some(condition_type))
}

/// Images of all containers of a pod spec, in order.
pub(super) fn images(pod_spec: &Value) -> Vec<String> {
    let Some(containers) = pod_spec.pointer("/containers").and_then(Value::as_array) else {
        return Vec::new();
    };
    containers.iter().map(|container| text(container, "/image").unwrap_or_default().to_owned()).collect()
}

/// Times in objects have a resolution of one second.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

pub(super) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    at.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

pub(super) fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// The earlier of two optional moments.
pub(super) fn earliest(left: Option<Timestamp>, right: Option<Timestamp>) -> Option<Timestamp> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

/// Hash of a pod template. Equal templates have equal hashes whatever the order of their members, explicit nulls and the
/// label [`TEMPLATE_HASH_LABEL`] do not count.
pub(super) fn template_hash(template: &Value) -> u64 {
    let mut hasher = Fnv::new();
    hash_value(template, &mut hasher);
    hasher.0
}

/// Ten characters or fewer that stand for a template hash in names and labels, as Kubernetes writes them.
pub(super) fn encode_hash(hash: u64, collision_count: i32) -> String {
    let mut hasher = Fnv(hash);
    if collision_count > 0 {
        hasher.write(&collision_count.to_le_bytes());
    }
    // Kubernetes has 32 bits of hash, printed in decimal and then mapped to letters.
    let folded = (hasher.0 >> 32) ^ (hasher.0 & u64::from(u32::MAX));
    folded.to_string().bytes().map(safe_letter).collect()
}

fn safe_letter(byte: u8) -> char {
    char::from(HASH_ALPHABET[usize::from(byte) % HASH_ALPHABET.len()])
}

/// FNV-1a: stable over builds and platforms, which the hashers of the standard library do not promise.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u64::from(*byte);
            self.0 = self.0.wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The terminator keeps neighbouring strings apart; 0xff never occurs in UTF-8.
    fn write_text(&mut self, text: &str) {
        self.write(text.as_bytes());
        self.write(&[0xff]);
    }
}

fn hash_value(value: &Value, hasher: &mut Fnv) {
    match value {
        Value::Null => hasher.write(b"n"),
        Value::Bool(true) => hasher.write(b"t"),
        Value::Bool(false) => hasher.write(b"f"),
        Value::Number(number) => {
            hasher.write(b"#");
            hasher.write_text(&number.to_string());
        }
        Value::String(text) => {
            hasher.write(b"s");
            hasher.write_text(text);
        }
        Value::Array(items) => {
            hasher.write(b"[");
            for item in items {
                hash_value(item, hasher);
            }
            hasher.write(b"]");
        }
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().filter(|(key, value)| !value.is_null() && *key != TEMPLATE_HASH_LABEL).collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            hasher.write(b"{");
            for (key, value) in members {
                hasher.write_text(key);
                hash_value(value, hasher);
            }
            hasher.write(b"}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn template_hash_ignores_nulls_and_its_own_label_but_sees_every_other_change() {
        let plain = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"image": "a:1"}]}});
        let labelled = json!({"spec": {"containers": [{"image": "a:1"}]},
            "metadata": {"creationTimestamp": null, "labels": {"pod-template-hash": "x", "app": "a"}}});
        let other = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"image": "a:2"}]}});
        assert_eq!(template_hash(&plain), template_hash(&labelled));
        assert_ne!(template_hash(&plain), template_hash(&other));
    }

    #[test]
    fn a_collision_gives_another_name() {
        assert_ne!(encode_hash(42, 0), encode_hash(42, 1));
        assert!(encode_hash(u64::MAX / 3, 0).len() <= 10);
    }
}
