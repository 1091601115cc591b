//! Parts of a stored object, and the version that follows when one of them is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{Layout, Record, position, range};
use crate::apiserver::fields::text;

/// A part of an object that can be replaced in its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `spec`; a change of it raises the generation.
    Spec,
    /// `status`.
    Status,
}

impl Part {
    /// The name of the part's field.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Status => "status",
        }
    }
}

/// What a write puts into the place of a part.
pub(crate) struct PartChange {
    pub(crate) part: Part,
    /// The JSON of the part's value.
    pub(crate) json: Vec<u8>,
    /// The text of managed fields after the write; an object that has none gets none.
    pub(crate) managed_fields: Option<String>,
}

impl Record {
    /// The version of an object after a write that changed one part of it, and with it who owns the fields. Made of the JSON
    /// before, without decoding it. `None` when that has no such parts, or when they are not where they usually are.
    pub(in crate::store) fn with_part(previous: &Self, resource_version: u64, change: &PartChange) -> Option<Self> {
        let before = &previous.layout;
        let mut after = *before;
        let version = format!("\"{resource_version}\"");
        let generation = match change.part {
            Part::Spec => (previous.generation()? + 1).to_string().into_bytes(),
            Part::Status => previous.part(before.generation).unwrap_or_default().to_vec(),
        };
        let managed_fields = change.managed_fields.as_deref().unwrap_or_default();
        let replaced = match change.part {
            Part::Spec => &mut after.spec,
            Part::Status => &mut after.status,
        };
        let mut parts: [(&mut (u32, u32), &[u8]); 4] = [
            (&mut after.generation, &generation),
            (&mut after.managed_fields, managed_fields.as_bytes()),
            (&mut after.resource_version, version.as_bytes()),
            (replaced, &change.json),
        ];
        let removed: u32 = parts.iter().map(|(range, _)| range.1 - range.0).sum();
        let added: usize = parts.iter().map(|(_, part)| part.len()).sum();
        // Exact, so that the box that it becomes needs no copy.
        let mut json = Vec::with_capacity((previous.json.len() + added).saturating_sub(removed as usize));
        let mut copied = 0;
        for (range, part) in &mut parts {
            let (start, end) = **range;
            if start == end {
                // What is missing before is missing after.
                if !part.is_empty() {
                    return None;
                }
                continue;
            }
            // In this order, or not at all.
            json.extend_from_slice(previous.json.get(copied..start as usize)?);
            copied = end as usize;
            range.0 = position(&json);
            json.extend_from_slice(part);
            range.1 = position(&json);
        }
        json.extend_from_slice(previous.json.get(copied..)?);
        // What follows `resourceVersion` in `metadata` did not change, nor what is between the parts.
        after.metadata.1 = after.resource_version.1 + (before.metadata.1 - before.resource_version.1);
        if change.part == Part::Spec && before.status.1 > 0 {
            after.status.0 = after.spec.1 + (before.status.0 - before.spec.1);
            after.status.1 = after.spec.1 + (before.status.1 - before.spec.1);
        } else if change.part == Part::Status && before.spec.1 > 0 {
            after.spec.0 = after.metadata.1 + (before.spec.0 - before.metadata.1);
            after.spec.1 = after.metadata.1 + (before.spec.1 - before.metadata.1);
        }
        Some(Self {
            resource_version,
            json: Bytes::from(json.into_boxed_slice()),
            layout: after,
            identity: Arc::clone(&previous.identity),
            decoded: Mutex::new(None),
            checked_by: AtomicU64::new(previous.checked_by.load(Ordering::Relaxed)),
        })
    }

    /// The version of an object after a write to its labels or annotations alone, given all its metadata but the version. Made of
    /// the JSON before, without decoding the rest.
    pub(in crate::store) fn with_metadata(
        previous: &Self,
        resource_version: u64,
        mut metadata: Map<String, Value>,
    ) -> Self {
        metadata.insert("resourceVersion".to_owned(), Value::String(resource_version.to_string()));
        let before = &previous.layout;
        let (start, end) = (before.metadata.0 as usize, before.metadata.1 as usize);
        // Room for a label that came to it, and for its owner.
        let mut json = Vec::with_capacity(previous.json.len() + 256);
        json.extend_from_slice(previous.json.get(..start).unwrap_or_default());
        let changing = text::write_metadata(&metadata, &mut json);
        let metadata_end = position(&json);
        let moved = |part: (u32, u32)| match part {
            (_, 0) => part,
            (start, end) => (metadata_end + (start - before.metadata.1), metadata_end + (end - before.metadata.1)),
        };
        let layout = Layout {
            item: before.item,
            metadata: (before.metadata.0, metadata_end),
            generation: range(changing.generation),
            managed_fields: range(changing.managed_fields),
            resource_version: range(changing.resource_version),
            spec: moved(before.spec),
            status: moved(before.status),
        };
        json.extend_from_slice(previous.json.get(end..).unwrap_or_default());
        Self {
            resource_version,
            json: Bytes::from(json.into_boxed_slice()),
            layout,
            identity: Arc::clone(&previous.identity),
            decoded: Mutex::new(None),
            checked_by: AtomicU64::new(previous.checked_by.load(Ordering::Relaxed)),
        }
    }

    /// The last state of an object that is taken out under a version. Made of the JSON before, without decoding it.
    pub(in crate::store) fn at_version(previous: &Self, resource_version: u64) -> Option<Self> {
        let before = &previous.layout;
        let (start, end) = before.resource_version;
        previous.part(before.resource_version)?;
        let version = format!("\"{resource_version}\"");
        let mut json = Vec::with_capacity(previous.json.len() + version.len() - (end - start) as usize);
        json.extend_from_slice(previous.json.get(..start as usize)?);
        json.extend_from_slice(version.as_bytes());
        let version_end = position(&json);
        let moved = |offset: u32| if offset < end { offset } else { version_end + (offset - end) };
        let moved_range = |(start, end): (u32, u32)| (moved(start), moved(end));
        let layout = Layout {
            item: before.item,
            metadata: (before.metadata.0, moved(before.metadata.1)),
            generation: moved_range(before.generation),
            managed_fields: moved_range(before.managed_fields),
            resource_version: (start, version_end),
            spec: moved_range(before.spec),
            status: moved_range(before.status),
        };
        json.extend_from_slice(previous.json.get(end as usize..)?);
        Some(Self {
            resource_version,
            json: Bytes::from(json.into_boxed_slice()),
            layout,
            identity: Arc::clone(&previous.identity),
            decoded: Mutex::new(None),
            checked_by: AtomicU64::new(0),
        })
    }

    /// The JSON of a part, if there is one.
    pub(crate) fn part_json(&self, part: Part) -> Option<&[u8]> {
        self.part(match part {
            Part::Spec => self.layout.spec,
            Part::Status => self.layout.status,
        })
    }

    /// The bytes in a part's place, if a text is this object's JSON but for them.
    pub(crate) fn part_replaced_in<'a>(&self, part: Part, text: &'a [u8]) -> Option<&'a [u8]> {
        let (start, end) = match part {
            Part::Spec => self.layout.spec,
            Part::Status => self.layout.status,
        };
        if end == 0 || !self.has_usual_parts_alone() {
            return None;
        }
        let rest = text.strip_prefix(self.json.get(..start as usize)?)?;
        rest.strip_suffix(self.json.get(end as usize..)?)
    }

    /// Whether there is nothing in the object but its type, `metadata`, `spec` and, if need be, `status`.
    pub(crate) fn has_usual_parts_alone(&self) -> bool {
        let Layout { item, metadata, spec, status, .. } = self.layout;
        let between = |start: u32, end: u32| self.json.get(start as usize..end as usize);
        let length = position(&self.json);
        let behind_spec = match status.1 {
            0 => between(spec.1, length) == Some(b"}"),
            end => between(spec.1, status.0) == Some(b",\"status\":") && between(end, length) == Some(b"}"),
        };
        between(item, metadata.0) == Some(b"\"metadata\":")
            && between(metadata.1, spec.0) == Some(b",\"spec\":")
            && behind_spec
    }

    fn generation(&self) -> Option<i64> {
        std::str::from_utf8(self.part(self.layout.generation)?).ok()?.parse().ok()
    }

    /// The JSON of `metadata` without managed fields and `resourceVersion`, in the pieces that are left.
    pub(crate) fn own_metadata(&self) -> Option<[&[u8]; 3]> {
        const MANAGED_FIELDS: &[u8] = b"\"managedFields\":";
        const RESOURCE_VERSION: &[u8] = b"\"resourceVersion\":";
        let Layout { metadata, managed_fields, resource_version, .. } = self.layout;
        let between = |start: u32, end: u32| self.json.get(start as usize..end as usize);
        let (first, behind_first) = match managed_fields.1 {
            0 => (&[] as &[u8], metadata.0),
            end => (between(metadata.0, managed_fields.0)?.strip_suffix(MANAGED_FIELDS)?, end + 1),
        };
        let second = between(behind_first, resource_version.0)?.strip_suffix(RESOURCE_VERSION)?;
        Some([first, second, between(resource_version.1 + 1, metadata.1)?])
    }
}
