//! In which order writes go out.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;

use aviary_providers::ObjectKey;

use crate::messages::Lane;

/// A write that waits.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) namespace: String,
    pub(crate) lane: Lane,
    pub(crate) objects: Vec<ObjectKey>,
    pub(crate) job: T,
}

/// How many writes may be under way when one of some lane is to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    /// All of them.
    pub(crate) total: usize,
    /// Those of its namespace.
    pub(crate) of_namespace: usize,
}

/// Writes that wait, by urgency, then fairly by namespace.
///
/// A more urgent lane always goes first; within a lane namespaces take turns; writes to one object never overlap and
/// keep their order within a lane. A namespace whose writes take long fills its own slots and no more.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    slots: fn(Lane) -> Slots,
    lanes: BTreeMap<Lane, BTreeMap<String, VecDeque<Waiting<T>>>>,
    last_served: BTreeMap<Lane, String>,
    busy: HashSet<ObjectKey>,
    length: usize,
    /// Under way, of each namespace that has any.
    in_flight: HashMap<String, usize>,
    total_in_flight: usize,
}

/// What a write takes up while it is under way; given back with [`Queue::release`].
#[derive(Debug)]
pub(crate) struct Taken {
    namespace: String,
    objects: Vec<ObjectKey>,
}

impl<T> Queue<T> {
    /// An empty queue with so many slots for each lane.
    pub(crate) fn new(slots: fn(Lane) -> Slots) -> Queue<T> {
        Queue {
            slots,
            lanes: BTreeMap::new(),
            last_served: BTreeMap::new(),
            busy: HashSet::new(),
            length: 0,
            in_flight: HashMap::new(),
            total_in_flight: 0,
        }
    }

    pub(crate) fn push(&mut self, waiting: Waiting<T>) {
        self.length += 1;
        let lane = self.lanes.entry(waiting.lane).or_default();
        lane.entry(waiting.namespace.clone()).or_default().push_back(waiting);
    }

    /// How many writes wait.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// How many are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.total_in_flight
    }

    /// The next write for which there is a slot and whose objects are free; both are taken until [`Queue::release`].
    pub(crate) fn pop(&mut self) -> Option<(T, Taken)> {
        for (lane, namespaces) in &mut self.lanes {
            let slots = (self.slots)(*lane);
            if self.total_in_flight >= slots.total {
                continue;
            }
            let has_slot =
                |namespace: &str| self.in_flight.get(namespace).is_none_or(|used| *used < slots.of_namespace);
            let last = self.last_served.get(lane).map_or("", String::as_str);
            let after = namespaces.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
            let before = namespaces.range::<str, _>((Bound::Unbounded, Bound::Included(last)));
            let found =
                after.chain(before).filter(|(namespace, _)| has_slot(namespace)).find_map(|(namespace, waiting)| {
                    first_free(waiting, &self.busy).map(|position| (namespace.clone(), position))
                });
            let Some((namespace, position)) = found else { continue };
            let Some(waiting) = namespaces.get_mut(&namespace) else { continue };
            let Some(found) = waiting.remove(position) else { continue };
            if waiting.is_empty() {
                namespaces.remove(&namespace);
            }
            self.last_served.insert(*lane, namespace.clone());
            self.busy.extend(found.objects.iter().cloned());
            self.length -= 1;
            *self.in_flight.entry(namespace.clone()).or_default() += 1;
            self.total_in_flight += 1;
            return Some((found.job, Taken { namespace, objects: found.objects }));
        }
        None
    }

    /// The newest write of the namespace that has most of them waiting in one lane; it is not waited for any more.
    pub(crate) fn drop_from_longest(&mut self) -> Option<T> {
        let namespaces = self.lanes.values_mut().flat_map(BTreeMap::iter_mut);
        let (_, longest) = namespaces.max_by_key(|(_, waiting)| waiting.len())?;
        let dropped = longest.pop_back()?;
        self.length -= 1;
        Some(dropped.job)
    }

    /// A write is over: its slot and its objects are free again.
    pub(crate) fn release(&mut self, taken: Taken) {
        let Taken { namespace, objects } = taken;
        for object in &objects {
            self.busy.remove(object);
        }
        self.total_in_flight = self.total_in_flight.saturating_sub(1);
        if let Some(used) = self.in_flight.get_mut(&namespace) {
            *used = used.saturating_sub(1);
            if *used == 0 {
                self.in_flight.remove(&namespace);
            }
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

    fn plenty(_: Lane) -> Slots {
        Slots { total: usize::MAX, of_namespace: usize::MAX }
    }

    /// One slot is kept for rollbacks, one of each namespace as well.
    fn few(lane: Lane) -> Slots {
        match lane {
            Lane::Rollback => Slots { total: 5, of_namespace: 3 },
            Lane::Promotion | Lane::Advance | Lane::Upkeep => Slots { total: 4, of_namespace: 2 },
        }
    }

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| {
            let (job, taken) = queue.pop()?;
            queue.release(taken);
            Some(job)
        })
        .collect()
    }

    #[test]
    fn rollback_overtakes_promotion_overtakes_advance() {
        let mut queue = Queue::new(plenty);
        queue.push(write(Lane::Upkeep, "a", "1", 4));
        queue.push(write(Lane::Advance, "a", "2", 3));
        queue.push(write(Lane::Promotion, "a", "3", 2));
        queue.push(write(Lane::Rollback, "a", "4", 1));
        assert_eq!(drain(&mut queue), [1, 2, 3, 4]);
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = Queue::new(plenty);
        for job in 0..3 {
            queue.push(write(Lane::Advance, "loud", &job.to_string(), job));
        }
        queue.push(write(Lane::Advance, "quiet", "x", 10));
        assert_eq!(drain(&mut queue), [0, 10, 1, 2]);
    }

    #[test]
    fn writes_to_one_object_never_overlap_and_keep_their_order() {
        let mut queue = Queue::new(plenty);
        queue.push(write(Lane::Advance, "a", "same", 1));
        queue.push(write(Lane::Advance, "a", "same", 2));
        queue.push(write(Lane::Advance, "a", "other", 3));
        let (first, taken) = queue.pop().unwrap();
        assert_eq!(first, 1);
        assert_eq!(queue.pop().unwrap().0, 3, "a different object goes side by side");
        assert!(queue.pop().is_none(), "the same object waits");
        queue.release(taken);
        assert_eq!(queue.pop().unwrap().0, 2);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_namespace_that_gives_no_slot_back_leaves_the_others_theirs() {
        let mut queue = Queue::new(few);
        for job in 0..10 {
            queue.push(write(Lane::Advance, "hangs", &job.to_string(), job));
        }
        queue.push(write(Lane::Upkeep, "quiet", "x", 20));
        let begun: Vec<(u32, Taken)> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(begun.iter().map(|(job, _)| *job).collect::<Vec<_>>(), [0, 1, 20]);
        let (_, taken) = begun.into_iter().next().unwrap();
        queue.release(taken);
        assert_eq!(queue.pop().unwrap().0, 2, "what is given back is its own again");
        assert!(queue.pop().is_none());
        assert_eq!((queue.in_flight(), queue.len()), (3, 7));
    }

    #[test]
    fn what_is_too_much_is_taken_from_who_has_most() {
        let mut queue = Queue::new(plenty);
        queue.push(write(Lane::Upkeep, "a", "x", 1));
        for job in 2..5 {
            queue.push(write(Lane::Upkeep, "noisy", "x", job));
        }
        queue.push(write(Lane::Upkeep, "z", "x", 5));
        assert_eq!(queue.drop_from_longest(), Some(4));
        assert_eq!(queue.len(), 4);
        assert_eq!(drain(&mut queue), [1, 2, 5, 3]);
    }

    #[test]
    fn a_rollback_finds_a_slot_where_everything_else_hangs() {
        let mut queue = Queue::new(few);
        for (job, namespace) in (0..).zip(["a", "a", "b", "b", "c"]) {
            queue.push(write(Lane::Promotion, namespace, &job.to_string(), job));
        }
        let begun: Vec<(u32, Taken)> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(begun.len(), 4);
        queue.push(write(Lane::Rollback, "a", "users", 10));
        assert_eq!(queue.pop().unwrap().0, 10, "of a namespace that hangs itself");
        assert!(queue.pop().is_none());
    }
}
