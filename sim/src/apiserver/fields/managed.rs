//! `metadata.managedFields`: who owns which fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::json;
use super::set::Set;
use crate::clock::format_seconds;

/// What a manager did with its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// It applied them: it has a say in whether they exist.
    Apply,
    /// It wrote them.
    Update,
}

impl Operation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager's part of stored managed fields, borrowed from their text. Names are escaped as in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) api_version: &'a str,
    /// Canonical FieldsV1.
    pub(crate) fields: &'a str,
    pub(crate) manager: &'a str,
    pub(crate) operation: &'a str,
    /// `status`, `scale`, or empty.
    pub(crate) subresource: &'a str,
    /// When the manager's set of fields, or a value in it, last changed; RFC 3339, or empty.
    pub(crate) time: &'a str,
}

/// Why managed fields that a client gave are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("managed fields are not a list of entries")]
    NotAList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("invalid fieldsType {0:?}")]
    FieldsType(String),
    #[error("failed to decode the fields of {manager}")]
    Fields { manager: String, source: json::FieldsError },
}

/// What makes a manager one (`BuildManagerIdentifier`): appliers are the same in every version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ManagerKey {
    pub(crate) manager: Arc<str>,
    pub(crate) operation: Operation,
    /// Empty for appliers.
    pub(crate) api_version: Arc<str>,
    pub(crate) subresource: Arc<str>,
}

/// A manager's decoded part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) set: Set,
    pub(crate) api_version: Arc<str>,
    /// RFC 3339 with whole seconds in UTC, or empty.
    pub(crate) time: Arc<str>,
}

/// Decoded managed fields.
pub(crate) type Managers = BTreeMap<ManagerKey, Owned>;

impl ManagerKey {
    pub(crate) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        // A client that says nothing of itself (`buildManagerInfo`).
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Self { manager: manager.into(), operation, api_version: api_version.into(), subresource: subresource.into() }
    }

    /// `"kubectl" with subresource "scale" using apps/v1`, as conflicts name it.
    pub(crate) fn describe(&self) -> String {
        let mut text = Value::from(&*self.manager).to_string();
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Reads the text of stored managed fields.
pub(crate) fn decode(text: &str) -> Managers {
    // Stored texts were printed by `encode`.
    serde_json::from_str(text).ok().and_then(|list| decode_given(&list).ok()).unwrap_or_default()
}

/// The text in which managed fields are stored: the JSON of the list in the API server's order. `None` for nothing to store.
pub(crate) fn encode(managers: &Managers) -> Option<String> {
    let pieces: Vec<[String; 4]> = managers
        .iter()
        .map(|(key, owned)| {
            [json::print(&owned.set), escaped(&key.manager), escaped(&owned.api_version), escaped(&key.subresource)]
        })
        .collect();
    let entries = managers.iter().zip(&pieces).map(|((key, owned), [fields, manager, api_version, subresource])| {
        Entry { api_version, fields, manager, operation: key.operation.as_str(), subresource, time: &owned.time }
    });
    print(entries.collect())
}

/// Prints entries in order.
pub(crate) fn print(mut entries: Vec<Entry<'_>>) -> Option<String> {
    // Appliers first, then by age, then by name (`sortEncodedManagedFields`). Times of one form sort as texts.
    entries.sort_by_key(|entry| (entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource));
    // What an entry has beside its fields.
    let size: usize = entries.iter().map(|entry| entry.fields.len() + 180).sum();
    let mut text = String::with_capacity(size);
    for entry in &entries {
        text.push(if text.is_empty() { '[' } else { ',' });
        for part in [
            "{\"apiVersion\":\"",
            entry.api_version,
            "\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":",
            entry.fields,
            ",\"manager\":\"",
            entry.manager,
            "\",\"operation\":\"",
            entry.operation,
        ] {
            text.push_str(part);
        }
        for (name, value) in [("\",\"subresource\":\"", entry.subresource), ("\",\"time\":\"", entry.time)] {
            if !value.is_empty() {
                text.push_str(name);
                text.push_str(value);
            }
        }
        text.push_str("\"}");
    }
    text.push(']');
    (!entries.is_empty()).then_some(text)
}

/// A text as it stands between quotes in JSON.
pub(crate) fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The entries of a stored text; `None` for a text of another form.
pub(crate) fn entries(text: &str) -> Option<Vec<Entry<'_>>> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        let (entry, after) = entry(rest)?;
        entries.push(entry);
        rest = after;
    }
    Some(entries)
}

fn entry(text: &str) -> Option<(Entry<'_>, &str)> {
    let (api_version, rest) = quoted(text.strip_prefix("{\"apiVersion\":")?)?;
    let rest = rest.strip_prefix(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":")?;
    let (fields, rest) = rest.split_at_checked(json::object_length(rest.as_bytes())?)?;
    let (manager, rest) = quoted(rest.strip_prefix(",\"manager\":")?)?;
    let (operation, rest) = quoted(rest.strip_prefix(",\"operation\":")?)?;
    let (subresource, rest) = match rest.strip_prefix(",\"subresource\":") {
        Some(rest) => quoted(rest)?,
        None => ("", rest),
    };
    let (time, rest) = match rest.strip_prefix(",\"time\":") {
        Some(rest) => quoted(rest)?,
        None => ("", rest),
    };
    let rest = rest.strip_prefix('}')?;
    Some((Entry { api_version, fields, manager, operation, subresource, time }, rest))
}

/// A JSON text at the beginning, still escaped, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut position = 0;
    loop {
        match text.as_bytes().get(position)? {
            b'"' => return Some((text.get(..position)?, text.get(position + 1..)?)),
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
}

/// Whether two stored texts differ in nothing but times.
pub(crate) fn is_same_but_for_times(left: &str, right: &str) -> bool {
    let timeless = |text| -> Option<Vec<Entry<'_>>> {
        let mut entries = entries(text)?;
        entries.iter_mut().for_each(|entry| entry.time = "");
        entries.sort_by_key(|entry| (entry.operation, entry.manager, entry.api_version, entry.subresource));
        Some(entries)
    };
    timeless(left) == timeless(right)
}

/// Whether a client asks for all managed fields to be forgotten: an empty list, or one empty entry.
pub(crate) fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => *only == json!({}),
        _ => false,
    }
}

/// Reads managed fields that a client gave.
pub(crate) fn decode_given(given: &Value) -> Result<Managers, DecodeError> {
    let mut managers = Managers::new();
    for entry in given.as_array().ok_or(DecodeError::NotAList)? {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(DecodeError::Operation),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err(DecodeError::NoVersion);
        }
        if text("fieldsType") != "FieldsV1" {
            return Err(DecodeError::FieldsType(text("fieldsType").to_owned()));
        }
        let set = match &entry["fieldsV1"] {
            Value::Null => Set::default(),
            fields => json::from_value(fields)
                .map_err(|source| DecodeError::Fields { manager: text("manager").to_owned(), source })?,
        };
        let mut key = ManagerKey::new(text("manager"), operation, api_version, text("subresource"));
        key.manager = text("manager").into();
        let time = text("time").parse().map(format_seconds).unwrap_or_default();
        managers.insert(key, Owned { set, api_version: api_version.into(), time: time.into() });
    }
    Ok(managers)
}

/// Most entries of writers before the oldest are merged (`DefaultMaxUpdateManagers`).
pub(crate) const MAX_UPDATE_MANAGERS: usize = 10;

/// Merges the oldest writers' entries of each version into one of nobody's (`capManagersManager`).
pub(crate) fn cap_update_managers(managers: &mut Managers) {
    let mut updaters: Vec<(Arc<str>, ManagerKey)> = managers
        .iter()
        .filter(|(key, _)| key.operation == Operation::Update)
        .map(|(key, owned)| (Arc::clone(&owned.time), key.clone()))
        .collect();
    let mut length = updaters.len();
    if length <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort();
    let mut first_of_version: BTreeMap<Arc<str>, ManagerKey> = BTreeMap::new();
    for (_, key) in updaters {
        if length <= MAX_UPDATE_MANAGERS {
            break;
        }
        let Some(version) = managers.get(&key).map(|owned| Arc::clone(&owned.api_version)) else {
            continue;
        };
        let Some(first) = first_of_version.get(&version) else {
            first_of_version.insert(version, key);
            continue;
        };
        let bucket = ManagerKey::new("ancient-changes", Operation::Update, &version, "");
        if !managers.contains_key(&bucket)
            && let Some(owned) = managers.remove(first)
        {
            managers.insert(bucket.clone(), owned);
        }
        if key == bucket {
            continue;
        }
        if let Some(owned) = managers.remove(&key)
            && let Some(ancient) = managers.get_mut(&bucket)
        {
            ancient.set = ancient.set.union(&owned.set);
            // The later of the two.
            ancient.time = owned.time;
            length -= 1;
        }
    }
}
