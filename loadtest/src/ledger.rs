//! How canaries go through their phases, as a watcher of the cluster sees it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aviary_sim::store::{ChangeType, Store, StoreEvent, kinds};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::objects::Name;

/// The end of one release.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    /// `Succeeded` or `Failed`.
    pub(crate) phase: String,
    /// Virtual time from the change of the Deployment on.
    pub(crate) took: Duration,
}

#[derive(Default)]
struct Book {
    phases: HashMap<Name, String>,
    counts: BTreeMap<String, usize>,
    released: HashMap<Name, Instant>,
    endings: HashMap<Name, Vec<Ending>>,
}

/// A record of phases, kept by a task of its own. A cheap handle.
#[derive(Clone)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
    changed: watch::Receiver<()>,
}

impl Ledger {
    /// Follows the cluster's canaries from now on.
    pub(crate) fn follow(store: &Store) -> Ledger {
        let mut changes = store.subscribe();
        let (sender, changed) = watch::channel(());
        let ledger = Ledger { book: Arc::default(), changed };
        let book = ledger.book.clone();
        tokio::spawn(async move {
            while let Some(event) = changes.recv().await {
                if event.kind == kinds::CANARY && lock(&book).take(&event) {
                    sender.send_replace(());
                }
            }
        });
        ledger
    }

    /// A release of this canary begins now.
    pub(crate) fn expect(&self, name: &Name) {
        lock(&self.book).released.insert(name.clone(), Instant::now());
    }

    /// Waits until so many canaries are in a phase.
    pub(crate) async fn wait_for_phase(&self, phase: &str, count: usize) {
        let mut changed = self.changed.clone();
        while lock(&self.book).counts.get(phase).copied().unwrap_or(0) < count {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a canary is in a phase.
    pub(crate) async fn wait_for(&self, name: &Name, phase: &str) {
        let mut changed = self.changed.clone();
        while lock(&self.book).phases.get(name).is_none_or(|present| present != phase) {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until so many releases of a canary have ended, and says how the last of them did.
    pub(crate) async fn wait_for_ending(&self, name: &Name, count: usize) -> String {
        let mut changed = self.changed.clone();
        loop {
            let endings = self.endings(name);
            if let Some(ending) = count.checked_sub(1).and_then(|index| endings.get(index)) {
                return ending.phase.clone();
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How many canaries are in which phase, for people.
    pub(crate) fn phases(&self) -> String {
        format!("{:?}", lock(&self.book).counts)
    }

    /// How this canary's releases ended, in order.
    pub(crate) fn endings(&self, name: &Name) -> Vec<Ending> {
        lock(&self.book).endings.get(name).cloned().unwrap_or_default()
    }
}

impl Book {
    /// Returns whether a phase has changed.
    fn take(&mut self, event: &StoreEvent) -> bool {
        let text =
            |pointer: &str| event.object().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = Name { namespace: text("/metadata/namespace"), name: text("/metadata/name") };
        let phase = if event.change == ChangeType::Deleted { String::new() } else { text("/status/phase") };
        let before = self.phases.insert(name.clone(), phase.clone()).unwrap_or_default();
        if before == phase {
            return false;
        }
        if let Some(count) = self.counts.get_mut(&before) {
            *count -= 1;
        }
        *self.counts.entry(phase.clone()).or_insert(0) += 1;
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            let took = self.released.get(&name).map(Instant::elapsed).unwrap_or_default();
            self.endings.entry(name).or_default().push(Ending { phase, took });
        }
        true
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
