//! How objects keep their managed fields inside the server: `metadata.managedFields` of a decoded object is not the list but its
//! JSON in one text. Nearly every write passes it on unread, and a text is copied at once where the list has a node for every
//! field of the object. Clients get the list: the text goes into an object's JSON as it is.

use std::ops::Range;

use serde_json::{Map, Value};

const FIELD: &str = "managedFields";

/// The text that an object keeps.
pub(crate) fn stored(object: &Value) -> Option<&str> {
    object.get("metadata")?.get(FIELD)?.as_str()
}

/// Takes what an object says of managed fields: the stored text, or the list that a client sent. Null for nothing.
pub(crate) fn take(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove(FIELD)).unwrap_or_default()
}

/// Gives back what was taken.
pub(crate) fn restore(object: &mut Value, taken: Value) {
    if !taken.is_null()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert(FIELD.to_owned(), taken);
    }
}

/// Gives an object its text.
pub(crate) fn store(object: &mut Value, text: Option<String>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match text {
        Some(text) => metadata.insert(FIELD.to_owned(), Value::String(text)),
        None => metadata.remove(FIELD),
    };
}

/// Turns the stored text into the list that clients see.
pub(crate) fn expand(object: &mut Value) {
    let Value::String(text) = take(object) else {
        return;
    };
    // The text is JSON of our own.
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(FIELD.to_owned(), list);
    }
}

/// Where the parts of an object's `metadata` are in its JSON that a write to its spec or status changes; `None` for what it has
/// not.
#[derive(Debug, Default)]
pub(crate) struct Changing {
    pub(crate) generation: Option<Range<usize>>,
    /// The list of managed fields.
    pub(crate) managed_fields: Option<Range<usize>>,
    /// The text of the version, with its quotes.
    pub(crate) resource_version: Option<Range<usize>>,
}

/// Appends the JSON of an object's `metadata`, with the stored text as the list that it is.
pub(crate) fn write_metadata(metadata: &Map<String, Value>, json: &mut Vec<u8>) -> Changing {
    let mut changing = Changing::default();
    let mut separator = b'{';
    for (name, value) in metadata {
        json.push(separator);
        separator = b',';
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut *json, name);
        json.push(b':');
        let start = json.len();
        match value {
            Value::String(text) if name == FIELD => {
                json.extend_from_slice(text.as_bytes());
                changing.managed_fields = Some(start..json.len());
            }
            value => {
                let _ = serde_json::to_writer(&mut *json, value);
                match name.as_str() {
                    "generation" => changing.generation = Some(start..json.len()),
                    "resourceVersion" => changing.resource_version = Some(start..json.len()),
                    _ => {}
                }
            }
        }
    }
    if separator == b'{' {
        json.push(separator);
    }
    json.push(b'}');
    changing
}

/// Decodes the JSON of an object without making a tree of its managed fields. `metadata` is where its metadata is.
///
/// # Errors
/// Not JSON.
pub(crate) fn read_object(json: &[u8], metadata: std::ops::Range<usize>) -> Result<Value, serde_json::Error> {
    let Some((text, cut)) = find(json, metadata) else {
        return serde_json::from_slice(json);
    };
    let mut rest = Vec::with_capacity(json.len() - cut.len());
    rest.extend_from_slice(&json[..cut.start]);
    rest.extend_from_slice(&json[cut.end..]);
    let mut object = serde_json::from_slice(&rest)?;
    store(&mut object, Some(text.to_owned()));
    Ok(object)
}

/// The text of managed fields in an object's own JSON, and from where to where it goes with its name and the comma behind it:
/// `name` always follows.
fn find(json: &[u8], metadata: std::ops::Range<usize>) -> Option<(&str, std::ops::Range<usize>)> {
    const START: &[u8] = b"\"managedFields\":[{\"apiVersion\":";
    let offset = json.get(metadata.clone())?.windows(START.len()).position(|window| window == START)?;
    let start = metadata.start + offset;
    let text_start = start + b"\"managedFields\":".len();
    let mut end = text_start + 1;
    loop {
        end += super::json::object_length(json.get(end..)?)?;
        match json.get(end)? {
            b',' => end += 1,
            b']' => break,
            _ => return None,
        }
    }
    let text = std::str::from_utf8(json.get(text_start..=end)?).ok()?;
    (json.get(end + 1) == Some(&b',')).then_some((text, start..end + 2))
}
