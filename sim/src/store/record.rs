//! Stored objects and their changes.
//!
//! An object rests as its JSON beside the few facts that the store itself asks for. A `Value` tree takes several times the room
//! of the JSON and as many allocations as it has fields; it is decoded on demand and kept only for objects in use
//! (see [`super::decoded`]).

mod part;

pub(crate) use part::{Part, PartChange};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kinds::GroupKind;
use crate::apiserver::fields::text;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeType {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone; the event carries its last state with the version of the deletion.
    Deleted,
}

/// A committed change, as in-process controllers see it.
#[derive(Clone, Debug)]
pub struct StoreEvent {
    /// What happened.
    pub change: ChangeType,
    /// The object's kind.
    pub kind: GroupKind,
    /// The version of the change, cluster-wide and rising.
    pub resource_version: u64,
    /// Whether it was a write to `/status` that left all else alone. Not every such write is known for one.
    pub is_status_only: bool,
    /// The part of a custom resource that was written, if that was all.
    pub(crate) part_only: Option<Part>,
    object: Arc<Observed>,
}

/// An object that is decoded when somebody looks at it, once for all who do.
#[derive(Debug)]
struct Observed {
    record: Option<Arc<Record>>,
    decoded: OnceLock<Arc<Value>>,
}

impl StoreEvent {
    pub(super) fn new(change: ChangeType, kind: GroupKind, record: &Arc<Record>, part_only: Option<Part>) -> Self {
        let decoded = record.decoded.lock().clone().map_or_else(OnceLock::new, OnceLock::from);
        let object = Arc::new(Observed { record: Some(Arc::clone(record)), decoded });
        let is_status_only = part_only == Some(Part::Status);
        Self { change, kind, resource_version: record.resource_version, is_status_only, part_only, object }
    }

    /// As if an object that is there had just been created, for those who begin to follow.
    pub(crate) fn of_present(kind: GroupKind, object: Arc<Value>) -> Self {
        let object = Arc::new(Observed { record: None, decoded: OnceLock::from(object) });
        let change = ChangeType::Added;
        Self { change, kind, resource_version: 0, is_status_only: false, part_only: None, object }
    }

    /// The object's namespace and name.
    pub(crate) fn name(&self) -> (&str, &str) {
        if let Some(record) = &self.object.record {
            return (record.namespace(), record.name());
        }
        let text = |field| self.object().get("metadata").and_then(|metadata| metadata.get(field)?.as_str());
        (text("namespace").unwrap_or_default(), text("name").unwrap_or_default())
    }

    /// What is to be known of the object's spec, without decoding the rest. `None` where it has no such spec.
    pub(crate) fn read_spec<T: DeserializeOwned>(&self) -> Option<T> {
        match &self.object.record {
            Some(record) => serde_json::from_slice(record.part_json(Part::Spec)?).ok(),
            None => T::deserialize(self.object().get("spec")?).ok(),
        }
    }

    /// The object after the change (for a deletion: its last state).
    #[must_use]
    pub fn object(&self) -> &Arc<Value> {
        let observed = &*self.object;
        observed.decoded.get_or_init(|| observed.record.as_ref().map(|record| record.value()).unwrap_or_default())
    }
}

/// One version of one object.
pub(crate) struct Record {
    pub(crate) resource_version: u64,
    json: Bytes,
    layout: Layout,
    identity: Arc<Identity>,
    decoded: Mutex<Option<Arc<Value>>>,
    /// The schema that this version was checked and completed by, by its number; 0 for none.
    checked_by: AtomicU64,
}

/// Where the parts of a record's JSON are. Sizes are bounded by the API server's limit of request bodies, far below `u32::MAX`.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    /// The first byte after `apiVersion`, `kind` and the comma behind them; 0 when the object has neither.
    item: u32,
    /// The value of `metadata`; empty when there is none.
    metadata: (u32, u32),
    /// Inside `metadata`: the generation, the list of managed fields, and the text of the version with its quotes; empty when
    /// there are none.
    generation: (u32, u32),
    managed_fields: (u32, u32),
    resource_version: (u32, u32),
    /// The values of `spec` and `status`; empty when there are none.
    spec: (u32, u32),
    status: (u32, u32),
}

/// What the store asks of an object without decoding it. Successive versions share it while nothing of it changes.
#[derive(Debug, Default)]
struct Identity {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    finalizers: Box<[Box<str>]>,
    owner_uids: Box<[Box<str>]>,
    deleting: bool,
}

impl Identity {
    fn of(value: &Value) -> Self {
        let metadata = value.get("metadata");
        let text = |field: &str| metadata.and_then(|metadata| metadata.get(field)?.as_str()).unwrap_or_default();
        Self {
            namespace: text("namespace").into(),
            name: text("name").into(),
            uid: text("uid").into(),
            finalizers: finalizers(value).map(Box::from).collect(),
            owner_uids: owner_uids(value).map(Box::from).collect(),
            deleting: metadata.is_some_and(|metadata| metadata.get("deletionTimestamp").is_some()),
        }
    }

    fn describes(&self, value: &Value) -> bool {
        let Some(metadata) = value.get("metadata") else {
            return false;
        };
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        self.deleting == metadata.get("deletionTimestamp").is_some()
            && *self.name == *text("name")
            && *self.namespace == *text("namespace")
            && *self.uid == *text("uid")
            && finalizers(value).eq(self.finalizers.iter().map(|name| &**name))
            && owner_uids(value).eq(self.owner_uids.iter().map(|uid| &**uid))
    }
}

impl Record {
    /// A version of an object. The one before it, if given, lends what did not change.
    pub(crate) fn new(value: Value, resource_version: u64, previous: Option<&Self>) -> Self {
        let identity = match previous {
            Some(previous) if previous.identity.describes(&value) => Arc::clone(&previous.identity),
            _ => Arc::new(Identity::of(&value)),
        };
        // Versions of an object are of much the same size; the slack is for a longer number or a new condition.
        let mut bytes = Vec::with_capacity(previous.map_or(512, |previous| previous.json.len() + 64));
        let layout = encode(&value, &mut bytes);
        Self {
            resource_version,
            // A boxed slice has no slack.
            json: Bytes::from(bytes.into_boxed_slice()),
            layout,
            identity,
            decoded: Mutex::new(Some(Arc::new(value))),
            checked_by: AtomicU64::new(0),
        }
    }

    /// Notes that this version was checked and completed by a schema.
    pub(crate) fn set_checked_by(&self, schema: u64) {
        self.checked_by.store(schema, Ordering::Relaxed);
    }

    /// Whether this version was checked and completed by a schema, so that nothing of it can be wrong unless it changes.
    pub(crate) fn is_checked_by(&self, schema: u64) -> bool {
        schema != 0 && self.checked_by.load(Ordering::Relaxed) == schema
    }

    /// The JSON of managed fields, if there are any.
    pub(crate) fn managed_fields(&self) -> Option<&str> {
        std::str::from_utf8(self.part(self.layout.managed_fields)?).ok()
    }

    fn part(&self, (start, end): (u32, u32)) -> Option<&[u8]> {
        self.json.get(start as usize..end as usize).filter(|part| !part.is_empty())
    }

    /// The object. Decoded anew, unless it is in use.
    pub(crate) fn value(&self) -> Arc<Value> {
        if let Some(value) = &*self.decoded.lock() {
            return Arc::clone(value);
        }
        Arc::new(self.decode())
    }

    /// The object as one's own.
    pub(crate) fn to_value(&self) -> Value {
        match &*self.decoded.lock() {
            Some(value) => (**value).clone(),
            None => self.decode(),
        }
    }

    fn decode(&self) -> Value {
        let (start, end) = self.layout.metadata;
        // These bytes were made from a `Value`.
        text::read_object(&self.json, start as usize..end as usize).unwrap_or_default()
    }

    /// Keeps the decoded object beside its JSON. Tells whether it was not kept before.
    pub(super) fn remember(&self) -> bool {
        let mut decoded = self.decoded.lock();
        let is_new = decoded.is_none();
        if is_new {
            *decoded = Some(Arc::new(self.decode()));
        }
        is_new
    }

    /// Lets go of the decoded object. Tells whether it was kept.
    pub(super) fn forget(&self) -> bool {
        self.decoded.lock().take().is_some()
    }

    pub(crate) fn is_remembered(&self) -> bool {
        self.decoded.lock().is_some()
    }

    /// The object's JSON in its storage version: `apiVersion`, `kind`, `metadata`, then the other fields in order.
    pub(crate) fn json(&self) -> Bytes {
        self.json.clone()
    }

    /// The same, borrowed.
    pub(crate) fn json_slice(&self) -> &[u8] {
        &self.json
    }

    /// The object's JSON in another version that differs in `apiVersion` alone.
    pub(crate) fn json_as(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.reserve(self.json.len() + api_version.len());
        out.extend_from_slice(b"{\"apiVersion\":\"");
        out.extend_from_slice(api_version.as_bytes());
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        let tail = self.item_tail();
        if tail != b"}" {
            out.push(b',');
        }
        out.extend_from_slice(tail);
    }

    /// The object's JSON without `apiVersion` and `kind`: the form in which lists of built-in kinds carry their items.
    pub(crate) fn write_item(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(self.item_tail());
    }

    fn item_tail(&self) -> &[u8] {
        self.json.get(self.layout.item.max(1) as usize..).unwrap_or_default()
    }

    /// The JSON of `metadata`.
    pub(crate) fn metadata_json(&self) -> &[u8] {
        let (start, end) = self.layout.metadata;
        match self.json.get(start as usize..end as usize) {
            Some(bytes) if !bytes.is_empty() => bytes,
            _ => b"{}",
        }
    }

    /// `metadata.labels`, without decoding the rest of the object.
    pub(crate) fn labels(&self) -> Value {
        #[derive(serde::Deserialize)]
        struct Labels {
            #[serde(default)]
            labels: Value,
        }
        if let Some(value) = &*self.decoded.lock() {
            return value.get("metadata").and_then(|metadata| metadata.get("labels")).cloned().unwrap_or_default();
        }
        // These bytes were made from a `Value`; metadata that is no object has no labels.
        serde_json::from_slice::<Labels>(self.metadata_json()).map(|metadata| metadata.labels).unwrap_or_default()
    }

    /// Bytes of the object's JSON.
    pub(crate) fn size(&self) -> usize {
        self.json.len()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.identity.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(crate) fn uid(&self) -> &str {
        &self.identity.uid
    }

    pub(super) fn shared_namespace(&self) -> Arc<str> {
        Arc::clone(&self.identity.namespace)
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.identity.name)
    }

    pub(super) fn shared_uid(&self) -> Arc<str> {
        Arc::clone(&self.identity.uid)
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.identity.deleting
    }

    pub(crate) fn finalizers(&self) -> Vec<&str> {
        self.identity.finalizers.iter().map(|name| &**name).collect()
    }

    pub(crate) fn owner_uids(&self) -> Vec<&str> {
        self.identity.owner_uids.iter().map(|uid| &**uid).collect()
    }

    pub(super) fn has_owners(&self) -> bool {
        !self.identity.owner_uids.is_empty()
    }

    pub(super) fn has_owners_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity) || self.identity.owner_uids == other.identity.owner_uids
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Record")
            .field("resource_version", &self.resource_version)
            .field("json", &String::from_utf8_lossy(&self.json))
            .finish_non_exhaustive()
    }
}

fn finalizers(value: &Value) -> impl Iterator<Item = &str> {
    let names = value.get("metadata").and_then(|metadata| metadata.get("finalizers")?.as_array());
    names.into_iter().flatten().filter_map(Value::as_str)
}

fn owner_uids(value: &Value) -> impl Iterator<Item = &str> {
    let owners = value.get("metadata").and_then(|metadata| metadata.get("ownerReferences")?.as_array());
    owners.into_iter().flatten().filter_map(|owner| owner.get("uid")?.as_str())
}

/// Appends the object with `apiVersion`, `kind` and `metadata` first, so that other forms of it are cut out of its JSON.
fn encode(value: &Value, out: &mut Vec<u8>) -> Layout {
    let mut layout = Layout::default();
    let Value::Object(fields) = value else {
        append(value, out);
        return layout;
    };
    let mut separator = b'{';
    for name in ["apiVersion", "kind", "metadata"] {
        let Some(field) = fields.get(name) else {
            continue;
        };
        out.extend_from_slice(&[separator, b'"']);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        separator = b',';
        let start = position(out);
        match field {
            Value::Object(metadata) if name == "metadata" => {
                let changing = text::write_metadata(metadata, out);
                layout.generation = range(changing.generation);
                layout.managed_fields = range(changing.managed_fields);
                layout.resource_version = range(changing.resource_version);
            }
            field => append(field, out),
        }
        if name == "metadata" {
            layout.metadata = (start, position(out));
        } else {
            layout.item = position(out) + 1;
        }
    }
    for (name, field) in fields {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        out.push(separator);
        separator = b',';
        append(name, out);
        out.push(b':');
        let start = position(out);
        append(field, out);
        match name.as_str() {
            "spec" => layout.spec = (start, position(out)),
            "status" => layout.status = (start, position(out)),
            _ => {}
        }
    }
    if separator == b'{' {
        out.push(separator);
    } else if layout.item == position(out) + 1 {
        // No field follows the comma that items begin after.
        layout.item = position(out);
    }
    out.push(b'}');
    layout
}

fn position(out: &[u8]) -> u32 {
    u32::try_from(out.len()).unwrap_or(u32::MAX)
}

fn range(range: Option<std::ops::Range<usize>>) -> (u32, u32) {
    let offset = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
    range.map_or((0, 0), |range| (offset(range.start), offset(range.end)))
}

fn append(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Serialising a `Value` into memory cannot fail: its keys are strings.
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "failed to serialise a JSON value: {written:?}");
}

pub(crate) fn to_bytes(value: &Value) -> Bytes {
    // Serialising a `Value` cannot fail: its keys are strings.
    serde_json::to_vec(value).map_or_else(|_| Bytes::new(), Bytes::from)
}

/// A change in the log of a kind.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) change: ChangeType,
    pub(crate) record: Arc<Record>,
    /// The object before, for selectors that it may have entered or left, and for reading an older version of a list.
    pub(crate) previous: Option<Arc<Record>>,
}

impl Change {
    pub(crate) fn resource_version(&self) -> u64 {
        self.record.resource_version
    }

    /// Bytes of JSON that only the log keeps: the state before, and the last state of what is gone.
    pub(super) fn retained_bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |previous| previous.size());
        let last = if self.change == ChangeType::Deleted { self.record.size() } else { 0 };
        previous + last
    }
}
