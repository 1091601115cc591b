//! What is stored: tables by kind and namespace, the log of each kind, and the indexes that deletion needs.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::Shared;
use super::decoded::Decoded;
use super::kinds::{CUSTOM_RESOURCE_DEFINITION, GroupKind};
use super::record::{Change, ChangeType, Part, PartChange, Record, StoreEvent};
use crate::random::Random;

/// Changes kept per kind for watches that resume and lists that are paged. A real server keeps about five minutes (etcd's
/// compaction interval) or up to 100k events; this covers 27 changes per second for as long.
const LOG_LENGTH: usize = 8_192;

/// JSON bytes that the log of one kind may keep alive beside the present objects: what 8,192 changes of objects of 1 KiB need.
/// Larger objects get a shorter history. A cluster in which ten kinds change all the time spends 80 MiB on it at most.
const LOG_BYTES: usize = 8 * 1024 * 1024;

/// Changes that may wait for one watch before it is cut off, as a real server cuts off a slow watcher. Large enough that a
/// single-threaded test may create a whole fleet before the watcher's task runs.
const WATCH_BACKLOG: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub(crate) kind: GroupKind,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl ObjectKey {
    /// The key of a stored object, which shares the record's texts.
    pub(crate) fn of(kind: &GroupKind, record: &Record) -> Self {
        Self { kind: kind.clone(), namespace: record.shared_namespace(), name: record.shared_name() }
    }
}

pub(crate) type Objects = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Record>>>;

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) objects: Objects,
    pub(crate) log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    /// Changes up to this version are no longer in the log.
    pub(crate) compacted: u64,
    cluster_watchers: Vec<mpsc::Sender<Arc<Change>>>,
    namespace_watchers: BTreeMap<String, Vec<mpsc::Sender<Arc<Change>>>>,
}

impl Table {
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Record>> {
        self.objects.get(namespace)?.get(name)
    }

    /// Puts a record into the place of the object's last one.
    fn replace(&mut self, key: &ObjectKey, record: &Arc<Record>) -> Option<Arc<Record>> {
        let record = Arc::clone(record);
        match self.objects.get_mut(&key.namespace) {
            Some(objects) => objects.insert(Arc::clone(&key.name), record),
            None => {
                self.objects.insert(Arc::clone(&key.namespace), BTreeMap::from([(Arc::clone(&key.name), record)]));
                None
            }
        }
    }

    pub(crate) fn records(&self, namespace: Option<&str>) -> Vec<Arc<Record>> {
        match namespace {
            Some(namespace) => {
                self.objects.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
            }
            None => self.objects.values().flat_map(|objects| objects.values().cloned()).collect(),
        }
    }

    /// The changes after a version; `None` when some of them were compacted.
    pub(crate) fn changes_after(&self, version: u64) -> Option<Vec<Arc<Change>>> {
        if version < self.compacted {
            return None;
        }
        let first = self.log.partition_point(|change| change.resource_version() <= version);
        Some(self.log.range(first..).cloned().collect())
    }

    /// The objects as they were at an older version; `None` when it was compacted.
    pub(crate) fn records_at(&self, namespace: Option<&str>, version: u64) -> Option<Vec<Arc<Record>>> {
        let later = self.changes_after(version)?;
        if later.is_empty() {
            return Some(self.records(namespace));
        }
        let mut records: BTreeMap<(Arc<str>, Arc<str>), Arc<Record>> =
            self.records(namespace).into_iter().map(|record| (record_key(&record), record)).collect();
        for change in later.iter().rev() {
            if namespace.is_some_and(|namespace| namespace != change.record.namespace()) {
                continue;
            }
            let key = record_key(&change.record);
            match &change.previous {
                Some(previous) => records.insert(key, Arc::clone(previous)),
                None => records.remove(&key),
            };
        }
        Some(records.into_values().collect())
    }

    pub(crate) fn watch(&mut self, namespace: Option<&str>) -> mpsc::Receiver<Arc<Change>> {
        let (sender, receiver) = mpsc::channel(WATCH_BACKLOG);
        let watchers = match namespace {
            None => &mut self.cluster_watchers,
            Some(namespace) => self.namespace_watchers.entry(namespace.to_owned()).or_default(),
        };
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        receiver
    }

    pub(crate) fn drop_watches(&mut self) {
        self.cluster_watchers.clear();
        self.namespace_watchers.clear();
    }

    fn publish(&mut self, change: &Arc<Change>) {
        let deliver = |watcher: &mpsc::Sender<Arc<Change>>| watcher.try_send(Arc::clone(change)).is_ok();
        self.cluster_watchers.retain(deliver);
        if self.namespace_watchers.is_empty() {
            return;
        }
        if let Some(watchers) = self.namespace_watchers.get_mut(change.record.namespace()) {
            watchers.retain(deliver);
        }
    }

    fn append(&mut self, change: Arc<Change>) {
        self.log_bytes += change.retained_bytes();
        self.log.push_back(change);
        // The newest change stays, however large: a watch that is up to date must be able to go on.
        while self.log.len() > 1
            && (self.log.len() > LOG_LENGTH || self.log_bytes > LOG_BYTES)
            && let Some(oldest) = self.log.pop_front()
        {
            self.log_bytes -= oldest.retained_bytes();
            self.compacted = oldest.resource_version();
        }
    }

    fn compact(&mut self, revision: u64) {
        self.log = VecDeque::new();
        self.log_bytes = 0;
        self.compacted = revision;
    }
}

fn record_key(record: &Record) -> (Arc<str>, Arc<str>) {
    (record.shared_namespace(), record.shared_name())
}

/// Everything behind the store's lock.
pub(crate) struct State {
    /// The version of the last change.
    pub(crate) revision: u64,
    /// In the order of kinds, so that what goes over all of them does so in the same order in every run.
    pub(crate) tables: BTreeMap<GroupKind, Table>,
    pub(crate) random: Random,
    pub(crate) by_uid: HashMap<Arc<str>, ObjectKey>,
    /// Owner's uid → objects that name it.
    pub(crate) dependents: HashMap<String, BTreeSet<ObjectKey>>,
    /// Namespace → number of objects in it.
    pub(crate) population: HashMap<Arc<str>, usize>,
    decoded: Decoded,
    pub(crate) subscribers: Vec<mpsc::UnboundedSender<StoreEvent>>,
    /// The last cluster IP given out, as an offset into the service range.
    pub(crate) last_cluster_ip: u32,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            // etcd's first revision is 1; an empty list must not have version 0, which means "any".
            revision: 1,
            tables: BTreeMap::new(),
            random: Random::new(seed),
            by_uid: HashMap::new(),
            dependents: HashMap::new(),
            population: HashMap::new(),
            decoded: Decoded::default(),
            subscribers: Vec::new(),
            last_cluster_ip: 0,
        }
    }

    pub(crate) fn record(&self, kind: &GroupKind, namespace: &str, name: &str) -> Option<&Arc<Record>> {
        self.tables.get(kind)?.get(namespace, name)
    }

    pub(crate) fn record_of(&self, key: &ObjectKey) -> Option<&Arc<Record>> {
        self.record(&key.kind, &key.namespace, &key.name)
    }

    /// The record, with its object decoded for this use and those that may follow soon.
    pub(crate) fn record_in_use(&mut self, kind: &GroupKind, namespace: &str, name: &str) -> Option<Arc<Record>> {
        let record = Arc::clone(self.record(kind, namespace, name)?);
        self.decoded.keep(&record);
        Some(record)
    }

    pub(crate) fn table(&mut self, kind: &GroupKind) -> &mut Table {
        self.tables.entry(kind.clone()).or_default()
    }

    /// Stores a new state of an object under the next version. Every check is the caller's.
    pub(crate) fn put(&mut self, shared: &Shared, key: &ObjectKey, value: Value) -> Arc<Record> {
        let present = self.record_of(key).cloned();
        self.put_after(shared, key, value, present.as_deref())
    }

    fn put_after(
        &mut self,
        shared: &Shared,
        key: &ObjectKey,
        mut value: Value,
        present: Option<&Record>,
    ) -> Arc<Record> {
        self.revision += 1;
        let version = self.revision;
        value["metadata"]["resourceVersion"] = Value::String(version.to_string());
        let record = Arc::new(Record::new(value, version, present));
        let previous = self.table(&key.kind).replace(key, &record);
        if let Some(previous) = &previous {
            self.decoded.forget(previous);
        }
        self.decoded.admit(&record);
        self.reindex(key, previous.as_deref(), Some(&record));
        let change = if previous.is_some() { ChangeType::Modified } else { ChangeType::Added };
        self.announce(shared, key, change, Arc::clone(&record), previous, None);
        record
    }

    /// Stores a new part of an object under the next version; see [`Record::with_part`]. `None` is no write.
    pub(super) fn put_part(
        &mut self,
        shared: &Shared,
        kind: &GroupKind,
        present: &Arc<Record>,
        change: &PartChange,
    ) -> Option<Arc<Record>> {
        let record = Record::with_part(present, self.revision + 1, change)?;
        Some(self.put_next(shared, kind, present, record, Some(change.part)))
    }

    /// Stores new labels or annotations of an object under the next version; see [`Record::with_metadata`].
    pub(super) fn put_metadata(
        &mut self,
        shared: &Shared,
        kind: &GroupKind,
        present: &Arc<Record>,
        metadata: Map<String, Value>,
    ) -> Arc<Record> {
        let record = Record::with_metadata(present, self.revision + 1, metadata);
        self.put_next(shared, kind, present, record, None)
    }

    /// Stores the next version of an object, of which neither the indexes nor its life depend on what changed.
    fn put_next(
        &mut self,
        shared: &Shared,
        kind: &GroupKind,
        present: &Arc<Record>,
        record: Record,
        part_only: Option<Part>,
    ) -> Arc<Record> {
        let record = Arc::new(record);
        self.revision += 1;
        let key = ObjectKey::of(kind, present);
        let previous = self.table(kind).replace(&key, &record);
        self.decoded.forget(present);
        self.announce(shared, &key, ChangeType::Modified, Arc::clone(&record), previous, part_only);
        record
    }

    /// Takes an object out under the next version.
    pub(crate) fn take(&mut self, shared: &Shared, key: &ObjectKey) -> Option<Arc<Record>> {
        let objects = self.tables.get_mut(&key.kind)?.objects.get_mut(&key.namespace)?;
        let previous = objects.remove(&key.name)?;
        self.revision += 1;
        self.decoded.forget(&previous);
        let record = Record::at_version(&previous, self.revision).unwrap_or_else(|| {
            let mut value = previous.to_value();
            value["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
            Record::new(value, self.revision, Some(&previous))
        });
        let record = Arc::new(record);
        self.reindex(key, Some(&previous), None);
        self.announce(shared, key, ChangeType::Deleted, Arc::clone(&record), Some(previous), None);
        record.forget();
        Some(record)
    }

    fn announce(
        &mut self,
        shared: &Shared,
        key: &ObjectKey,
        change: ChangeType,
        record: Arc<Record>,
        previous: Option<Arc<Record>>,
        part_only: Option<Part>,
    ) {
        if key.kind == CUSTOM_RESOURCE_DEFINITION {
            shared.refresh_registration(change, &record.value());
        }
        if !self.subscribers.is_empty() {
            let event = StoreEvent::new(change, key.kind.clone(), &record, part_only);
            self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        }
        let entry = Arc::new(Change { change, record, previous });
        let table = self.table(&key.kind);
        table.publish(&entry);
        table.append(entry);
    }

    fn reindex(&mut self, key: &ObjectKey, before: Option<&Record>, after: Option<&Record>) {
        if before.is_none()
            && let Some(record) = after
        {
            // The record's own texts, so that all indexes share them.
            let key = ObjectKey::of(&key.kind, record);
            if !key.namespace.is_empty() {
                *self.population.entry(Arc::clone(&key.namespace)).or_default() += 1;
            }
            self.by_uid.insert(record.shared_uid(), key);
        }
        if after.is_none()
            && let Some(record) = before
        {
            self.by_uid.remove(record.uid());
            if let Some(count) = self.population.get_mut(&key.namespace) {
                *count = count.saturating_sub(1);
            }
        }
        let has_same_owners = match (before, after) {
            (Some(before), Some(after)) => after.has_owners_of(before),
            (Some(only), None) | (None, Some(only)) => !only.has_owners(),
            (None, None) => true,
        };
        if has_same_owners {
            return;
        }
        let owners_before = before.map(Record::owner_uids).unwrap_or_default();
        let owners_after = after.map(Record::owner_uids).unwrap_or_default();
        for uid in owners_before {
            if let Some(dependents) = self.dependents.get_mut(uid) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        for uid in owners_after {
            self.dependents.entry(uid.to_owned()).or_default().insert(key.clone());
        }
    }

    /// Fills what the API server sets on every new object (`rest.BeforeCreate`) and stores it.
    ///
    /// The caller has made sure that the name is free.
    pub(crate) fn insert(
        &mut self,
        shared: &Shared,
        key: &ObjectKey,
        mut value: Value,
        tracks_generation: bool,
    ) -> Arc<Record> {
        let uid = self.random.uid();
        if !value["metadata"].is_object() {
            value["metadata"] = json!({});
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for server_owned in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                metadata.remove(server_owned);
            }
            metadata.insert("uid".to_owned(), Value::String(uid));
            metadata.insert("name".to_owned(), Value::String(key.name.to_string()));
            if key.namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), Value::String(key.namespace.to_string()));
            }
            metadata.insert(
                "creationTimestamp".to_owned(),
                Value::String(crate::clock::format_seconds(shared.clock.now())),
            );
            // Kinds without one keep what they are given.
            if tracks_generation {
                metadata.insert("generation".to_owned(), 1.into());
            }
        }
        let record = self.put_after(shared, key, value, None);
        if record.has_owners() {
            self.collect_if_orphaned(shared, key);
        }
        record
    }

    pub(crate) fn compact(&mut self) {
        let revision = self.revision;
        for table in self.tables.values_mut() {
            table.compact(revision);
        }
    }
}
