//! Which records keep their decoded object beside the JSON.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::record::Record;

/// JSON bytes of the objects that stay decoded. A tree takes about twelve times its JSON, so that this is some 3 MB, about what
/// a processor's cache holds: an object that has left it is decoded again as fast as its tree would be read from memory.
const LIMIT: usize = 256 * 1024;

/// The records whose object is decoded, the longest kept first.
#[derive(Default)]
pub(super) struct Decoded {
    queue: VecDeque<Weak<Record>>,
    /// Records with a decoded object; the queue also holds what was forgotten since.
    kept: usize,
    /// Bytes of their JSON.
    bytes: usize,
}

impl Decoded {
    /// Decodes an object for uses to come.
    pub(super) fn keep(&mut self, record: &Arc<Record>) {
        if record.remember() {
            self.admit(record);
        }
    }

    /// Counts a record that was made with its object.
    pub(super) fn admit(&mut self, record: &Arc<Record>) {
        self.queue.push_back(Arc::downgrade(record));
        self.kept += 1;
        self.bytes += record.size();
        while self.bytes > LIMIT
            && let Some(oldest) = self.queue.pop_front()
        {
            if let Some(oldest) = oldest.upgrade() {
                self.forget(&oldest);
            }
        }
        // Sweeping when half of the queue is stale costs each entry a constant on average.
        if self.queue.len() > 2 * self.kept + 64 {
            self.queue.retain(|record| record.upgrade().is_some_and(|record| record.is_remembered()));
        }
    }

    /// Lets go of the object of a record that is no longer current. Whoever holds it keeps it.
    pub(super) fn forget(&mut self, record: &Record) {
        if record.forget() {
            self.kept = self.kept.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(record.size());
        }
    }
}
