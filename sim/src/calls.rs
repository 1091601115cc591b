//! Counting and logging of API calls, so that tests can say what a client cost.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

/// What a request does, in the words of RBAC and of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Read of one object, or of a path that is no resource.
    Get,
    /// Read of a collection.
    List,
    /// Opening of a watch; every re-opening counts again.
    Watch,
    /// POST of an object.
    Create,
    /// PUT of an object.
    Update,
    /// PATCH of an object.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

impl Verb {
    /// Whether the verb can change the cluster.
    #[must_use]
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }

    /// Lower-case name, e.g. `deletecollection`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What calls are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    /// The client's User-Agent.
    pub client: String,
    /// What it did.
    pub verb: Verb,
    /// Plural resource name, e.g. `canaries`; the path for requests that are no resource, e.g. `/apis`.
    pub resource: String,
    /// `status`, `scale`, or empty.
    pub subresource: String,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Client, verb, resource and subresource.
    pub key: CallKey,
    /// Namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// Object name; empty for collections.
    pub name: String,
}

/// A line of the ordered log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEntry {
    /// Arrival, in cluster time.
    pub time: Timestamp,
    /// The request.
    pub call: Call,
    /// HTTP status of the answer; 0 while there is none.
    pub code: u16,
}

/// Counts of calls, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    counts: BTreeMap<CallKey, u64>,
}

impl CallCounts {
    /// Sum over the keys for which `wanted` holds.
    pub fn sum(&self, wanted: impl Fn(&CallKey) -> bool) -> u64 {
        self.counts.iter().filter(|(key, _)| wanted(key)).map(|(_, count)| count).sum()
    }

    /// Calls of a verb on a resource, of all clients and subresources.
    #[must_use]
    pub fn count(&self, verb: Verb, resource: &str) -> u64 {
        self.sum(|key| key.verb == verb && key.resource == resource)
    }

    /// Only the calls of one client.
    #[must_use]
    pub fn of_client(&self, client: &str) -> Self {
        let counts = self
            .counts
            .iter()
            .filter(|(key, _)| key.client == client)
            .map(|(key, count)| (key.clone(), *count))
            .collect();
        Self { counts }
    }

    /// Calls of any kind.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Calls that read: get and list. Watches are not reads; they are opened and re-opened as the server pleases.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.sum(|key| matches!(key.verb, Verb::Get | Verb::List))
    }

    /// Calls that write anything but Events.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.sum(|key| key.verb.is_write() && key.resource != "events")
    }

    /// Calls that write Events.
    #[must_use]
    pub fn event_writes(&self) -> u64 {
        self.sum(|key| key.verb.is_write() && key.resource == "events")
    }

    /// Keys and their counts, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&CallKey, u64)> {
        self.counts.iter().map(|(key, count)| (key, *count))
    }

    fn minus(&self, earlier: &Self) -> Self {
        let counts = self
            .counts
            .iter()
            .map(|(key, count)| {
                let before = earlier.counts.get(key).copied().unwrap_or(0);
                (key.clone(), count.saturating_sub(before))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        Self { counts }
    }
}

impl std::fmt::Display for CallCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (key, count) in &self.counts {
            let slash = if key.subresource.is_empty() { "" } else { "/" };
            writeln!(formatter, "{count:>8} {} {} {}{slash}{}", key.client, key.verb, key.resource, key.subresource)?;
        }
        Ok(())
    }
}

/// The record of all calls. A cheap handle.
#[derive(Clone, Debug)]
pub struct CallLog {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    counts: HashMap<CallKey, u64>,
    entries: VecDeque<CallEntry>,
    /// Number of the first entry that is still there.
    first: u64,
    capacity: usize,
}

/// Where a call's answer is written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl CallLog {
    /// A log that keeps the last `capacity` calls in order; counts are kept in any case. 0 keeps none.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner { counts: HashMap::new(), entries: VecDeque::new(), first: 0, capacity })),
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> CallCounts {
        let inner = self.inner.lock();
        CallCounts { counts: inner.counts.iter().map(|(key, count)| (key.clone(), *count)).collect() }
    }

    /// What was called after an earlier [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn since(&self, earlier: &CallCounts) -> CallCounts {
        self.snapshot().minus(earlier)
    }

    /// Writes of all clients so far, Events apart.
    #[must_use]
    pub fn total_writes(&self) -> u64 {
        self.snapshot().writes()
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<CallEntry> {
        self.inner.lock().entries.iter().cloned().collect()
    }

    pub(crate) fn begin(&self, call: &Call, time: Timestamp) -> Ticket {
        let mut inner = self.inner.lock();
        match inner.counts.get_mut(&call.key) {
            Some(count) => *count += 1,
            None => {
                inner.counts.insert(call.key.clone(), 1);
            }
        }
        let ticket = Ticket(inner.first + inner.entries.len() as u64);
        if inner.capacity == 0 {
            return ticket;
        }
        if inner.entries.len() >= inner.capacity {
            inner.entries.pop_front();
            inner.first += 1;
        }
        inner.entries.push_back(CallEntry { time, call: call.clone(), code: 0 });
        ticket
    }

    pub(crate) fn finish(&self, ticket: Ticket, code: u16) {
        let mut inner = self.inner.lock();
        let Some(index) = ticket.0.checked_sub(inner.first) else {
            return;
        };
        if let Some(entry) = inner.entries.get_mut(index as usize) {
            entry.code = code;
        }
    }
}
