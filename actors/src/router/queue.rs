//! In which order writes go out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;

use aviary_providers::ObjectKey;

use crate::messages::Lane;

/// A write that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) namespace: String,
    pub(super) lane: Lane,
    pub(super) objects: Vec<ObjectKey>,
    pub(super) job: T,
}

/// Writes that wait, by urgency, then fairly by namespace.
///
/// A more urgent lane always goes first; within a lane namespaces take turns; writes to one object never overlap and
/// keep their order within a lane.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lanes: BTreeMap<Lane, BTreeMap<String, VecDeque<Waiting<T>>>>,
    last_served: BTreeMap<Lane, String>,
    busy: HashSet<ObjectKey>,
    length: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { lanes: BTreeMap::new(), last_served: BTreeMap::new(), busy: HashSet::new(), length: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, waiting: Waiting<T>) {
        self.length += 1;
        let lane = self.lanes.entry(waiting.lane).or_default();
        lane.entry(waiting.namespace.clone()).or_default().push_back(waiting);
    }

    /// How many writes wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The next write whose objects are free; they are taken until [`Queue::release`].
    pub(super) fn pop(&mut self) -> Option<Waiting<T>> {
        for (lane, namespaces) in &mut self.lanes {
            let last = self.last_served.get(lane).map_or("", String::as_str);
            let after = namespaces.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
            let before = namespaces.range::<str, _>((Bound::Unbounded, Bound::Included(last)));
            let found = after.chain(before).find_map(|(namespace, waiting)| {
                first_free(waiting, &self.busy).map(|position| (namespace.clone(), position))
            });
            let Some((namespace, position)) = found else { continue };
            let Some(waiting) = namespaces.get_mut(&namespace) else { continue };
            let Some(found) = waiting.remove(position) else { continue };
            if waiting.is_empty() {
                namespaces.remove(&namespace);
            }
            self.last_served.insert(*lane, namespace);
            self.busy.extend(found.objects.iter().cloned());
            self.length -= 1;
            return Some(found);
        }
        None
    }

    /// The objects are free again.
    pub(super) fn release(&mut self, objects: &[ObjectKey]) {
        for object in objects {
            self.busy.remove(object);
        }
    }
}

/// The first write that touches no busy object and overtakes no earlier write to one of its objects.
fn first_free<T>(waiting: &VecDeque<Waiting<T>>, busy: &HashSet<ObjectKey>) -> Option<usize> {
    let mut blocked: HashSet<&ObjectKey> = HashSet::new();
    for (position, candidate) in waiting.iter().enumerate() {
        let free = candidate.objects.iter().all(|object| !busy.contains(object) && !blocked.contains(object));
        if free {
            return Some(position);
        }
        blocked.extend(&candidate.objects);
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aviary_providers::kinds;

    fn write(lane: Lane, namespace: &str, name: &str, job: u32) -> Waiting<u32> {
        let object = ObjectKey { kind: &kinds::VIRTUAL_SERVICE, namespace: namespace.into(), name: name.into() };
        Waiting { namespace: namespace.into(), lane, objects: vec![object], job }
    }

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| {
            let next = queue.pop()?;
            queue.release(&next.objects);
            Some(next.job)
        })
        .collect()
    }

    #[test]
    fn rollback_overtakes_promotion_overtakes_advance() {
        let mut queue = Queue::default();
        queue.push(write(Lane::Upkeep, "a", "1", 4));
        queue.push(write(Lane::Advance, "a", "2", 3));
        queue.push(write(Lane::Promotion, "a", "3", 2));
        queue.push(write(Lane::Rollback, "a", "4", 1));
        assert_eq!(drain(&mut queue), [1, 2, 3, 4]);
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = Queue::default();
        for job in 0..3 {
            queue.push(write(Lane::Advance, "loud", &job.to_string(), job));
        }
        queue.push(write(Lane::Advance, "quiet", "x", 10));
        assert_eq!(drain(&mut queue), [0, 10, 1, 2]);
    }

    #[test]
    fn writes_to_one_object_never_overlap_and_keep_their_order() {
        let mut queue = Queue::default();
        queue.push(write(Lane::Advance, "a", "same", 1));
        queue.push(write(Lane::Advance, "a", "same", 2));
        queue.push(write(Lane::Advance, "a", "other", 3));
        let first = queue.pop().unwrap();
        assert_eq!(first.job, 1);
        assert_eq!(queue.pop().unwrap().job, 3, "a different object goes side by side");
        assert!(queue.pop().is_none(), "the same object waits");
        queue.release(&first.objects);
        assert_eq!(queue.pop().unwrap().job, 2);
        assert_eq!(queue.len(), 0);
    }
}
