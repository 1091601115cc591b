//! Deletions, remembered for as long as something older may still come in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aviary_providers::ObjectKey;
use tokio::time::Instant;

/// Twice the time after which a write is given up: its answer is what comes late.
const REMEMBERED: Duration = Duration::from_secs(60);
/// More deletions than that in a minute are those of whole namespaces, of which few objects are being written to; at some
/// 200 bytes each they take 2 MB.
const LIMIT: usize = 10_000;

/// In which versions objects were deleted lately.
#[derive(Default)]
pub(super) struct Deletions(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    versions: HashMap<ObjectKey, u64>,
    order: VecDeque<(Instant, ObjectKey, u64)>,
}

impl Deletions {
    /// Remembers that nothing is left of an object as it was in this version or before.
    pub(super) fn record(&self, key: &ObjectKey, version: u64) {
        // Not a number: it cannot be compared.
        if version == 0 {
            return;
        }
        let now = Instant::now();
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { versions, order } = &mut *guard;
        while let Some((at, oldest, known)) = order.front()
            && (order.len() >= LIMIT || now.duration_since(*at) >= REMEMBERED)
        {
            if versions.get(oldest) == Some(known) {
                versions.remove(oldest);
            }
            order.pop_front();
        }
        if versions.get(key).is_some_and(|known| *known >= version) {
            return;
        }
        versions.insert(key.clone(), version);
        order.push_back((now, key.clone(), version));
    }

    /// Whether an object in this version is one that was deleted since.
    pub(super) fn cover(&self, key: &ObjectKey, version: u64) -> bool {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        version != 0 && guard.versions.get(key).is_some_and(|deleted| version <= *deleted)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aviary_providers::kinds;

    #[tokio::test(start_paused = true)]
    async fn deletions_are_remembered_for_a_minute_and_not_without_end() {
        let key = |index: usize| ObjectKey { kind: &kinds::SERVICE, namespace: "a".into(), name: index.to_string() };
        let deletions = Deletions::default();
        for index in 0..=LIMIT {
            deletions.record(&key(index), 7);
        }
        assert_eq!(deletions.len(), LIMIT);
        assert!(!deletions.cover(&key(0), 7), "the oldest makes room");
        assert!(deletions.cover(&key(1), 7) && deletions.cover(&key(1), 6) && !deletions.cover(&key(1), 8));
        tokio::time::advance(REMEMBERED).await;
        deletions.record(&key(0), 9);
        assert_eq!(deletions.len(), 1);
        assert!(!deletions.cover(&key(1), 7) && deletions.cover(&key(0), 9));
    }
}
