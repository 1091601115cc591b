//! The decisions of the deployment controller.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::super::json::{after, seconds};
use super::spec::{DeploymentSpec, Strategy};
use super::status::{
    AVAILABLE, Condition, DEPLOYMENT_PAUSED, DEPLOYMENT_RESUMED, DeploymentStatus, FOUND_NEW_REPLICA_SET,
    MINIMUM_REPLICAS_AVAILABLE, MINIMUM_REPLICAS_UNAVAILABLE, NEW_REPLICA_SET_AVAILABLE, NEW_REPLICA_SET_CREATED,
    PROGRESS_DEADLINE_EXCEEDED, PROGRESSING, REPLICA_FAILURE, REPLICA_SET_UPDATED,
};

/// Counts of a ReplicaSet's pods. Pods that are being deleted are in `terminating` only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SetStatus {
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: i32,
}

/// A ReplicaSet as the deployment controller sees it.
#[derive(Debug, Clone)]
pub(crate) struct SetView {
    pub(crate) name: String,
    pub(crate) template_hash: u64,
    pub(crate) created: Timestamp,
    pub(crate) deleting: bool,
    pub(crate) revision: i64,
    /// `spec.replicas`.
    pub(crate) replicas: i32,
    /// Seconds.
    pub(crate) min_ready: i64,
    pub(crate) desired_annotation: Option<i32>,
    pub(crate) max_annotation: Option<i32>,
    pub(crate) status: SetStatus,
    /// The status is of the current generation.
    pub(crate) settled: bool,
    /// What keeps it from making its pods.
    pub(crate) failure: Option<Condition>,
}

impl SetView {
    /// Its available pods without those that are surplus to its size.
    fn lasting(&self) -> i32 {
        self.status.available.min(self.replicas)
    }

    /// Its status is older than its size: pods are counted that are on their way out.
    fn has_surplus(&self) -> bool {
        self.status.available > self.replicas
    }
}

/// A change to the ReplicaSets of a Deployment, to be made in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A ReplicaSet for the current template.
    Create { name: String, revision: i64, replicas: i32 },
    /// Another size, or only other annotations where `from == to`.
    Scale { name: String, from: i32, to: i32 },
    /// The set of the current template takes a new revision number, or the Deployment's `minReadySeconds`.
    Refresh { name: String, revision: i64 },
    /// An old set beyond the history limit.
    Delete { name: String },
}

/// What is to be done about a Deployment now.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) operations: Vec<Operation>,
    pub(crate) status: DeploymentStatus,
    /// Value for the revision annotation of the Deployment.
    pub(crate) revision: Option<i64>,
    /// When the progress deadline has to be looked at again, should nothing happen before.
    pub(crate) wake: Option<Timestamp>,
}

/// Decides as `syncDeployment` of Kubernetes does. `stored` is the status that the Deployment carries.
pub(crate) fn plan(spec: &DeploymentSpec, stored: &DeploymentStatus, sets: Vec<SetView>, now: Timestamp) -> Plan {
    let mut rollout = Rollout {
        spec,
        now,
        current: stored.clone(),
        new_set: sets_of_template(&sets, spec.template_hash),
        sets,
        operations: Vec::new(),
        revision: None,
    };
    let (status, wake) = rollout.run();
    Plan { operations: rollout.operations, status, revision: rollout.revision, wake }
}

/// The oldest set of the template: where two match, all controllers must pick the same.
fn sets_of_template(sets: &[SetView], template_hash: u64) -> Option<usize> {
    (0..sets.len())
        .filter(|index| sets[*index].template_hash == template_hash)
        .min_by_key(|index| (sets[*index].created, sets[*index].name.clone()))
}

struct Rollout<'a> {
    spec: &'a DeploymentSpec,
    now: Timestamp,
    current: DeploymentStatus,
    sets: Vec<SetView>,
    /// Index of the set of the current template.
    new_set: Option<usize>,
    operations: Vec<Operation>,
    revision: Option<i64>,
}

impl Rollout<'_> {
    fn run(&mut self) -> (DeploymentStatus, Option<Timestamp>) {
        if self.spec.deleting {
            return (self.calculate_status(), None);
        }
        self.check_paused();
        if self.spec.paused {
            self.sync_new_set();
            self.scale();
            self.clean_up_history();
            return (self.calculate_status(), None);
        }
        self.sync_new_set();
        if self.is_scaling_event() {
            self.scale();
            return (self.calculate_status(), None);
        }
        match self.spec.strategy {
            Strategy::RollingUpdate => self.roll(),
            Strategy::Recreate => self.recreate(),
        }
        self.rollout_status()
    }

    fn check_paused(&mut self) {
        if self.spec.progress_deadline.is_none() {
            return;
        }
        let reason = self.current.condition(PROGRESSING).map(|condition| condition.reason.as_str());
        if reason == Some(PROGRESS_DEADLINE_EXCEEDED) {
            return;
        }
        let was_paused = reason == Some(DEPLOYMENT_PAUSED);
        if self.spec.paused && !was_paused {
            self.set_progressing("Unknown", DEPLOYMENT_PAUSED, "Deployment is paused".into());
        } else if !self.spec.paused && was_paused {
            self.set_progressing("Unknown", DEPLOYMENT_RESUMED, "Deployment is resumed".into());
        }
    }

    fn set_progressing(&mut self, status: &str, reason: &str, message: String) {
        let condition = Condition::new(PROGRESSING, status, reason, message, self.now);
        self.current.set_condition(condition);
    }

    /// Brings an existing set of the current template up to date: its revision is the highest of all.
    fn sync_new_set(&mut self) {
        let Some(index) = self.new_set else { return };
        let revision = self.next_revision();
        let set = &mut self.sets[index];
        if set.revision < revision || set.min_ready != self.spec.min_ready {
            set.revision = set.revision.max(revision);
            set.min_ready = self.spec.min_ready;
            self.operations.push(Operation::Refresh { name: set.name.clone(), revision: set.revision });
        }
        self.revision = Some(set.revision);
        let found = format!("Found new replica set \"{}\"", set.name);
        if self.spec.progress_deadline.is_some() && self.current.condition(PROGRESSING).is_none() {
            self.set_progressing("True", FOUND_NEW_REPLICA_SET, found);
        }
    }

    fn next_revision(&self) -> i64 {
        let highest_old = self.old_sets().map(|set| set.revision).max();
        highest_old.unwrap_or(0) + 1
    }

    /// The set of the current template, made if there is none.
    fn ensure_new_set(&mut self) -> usize {
        if let Some(index) = self.new_set {
            return index;
        }
        let name = self.spec.new_set_name(self.current.collision_count);
        let revision = self.next_revision();
        let mut set = SetView {
            name: name.clone(),
            template_hash: self.spec.template_hash,
            created: self.now,
            deleting: false,
            revision,
            replicas: 0,
            min_ready: self.spec.min_ready,
            desired_annotation: Some(self.spec.replicas),
            max_annotation: Some(self.spec.max_replicas()),
            status: SetStatus::default(),
            settled: false,
            failure: None,
        };
        set.replicas = self.wanted_new_replicas(0);
        self.operations.push(Operation::Create { name: name.clone(), revision, replicas: set.replicas });
        self.sets.push(set);
        let index = self.sets.len() - 1;
        self.new_set = Some(index);
        self.revision = Some(revision);
        if self.spec.progress_deadline.is_some() {
            let created = format!("Created new replica set \"{name}\"");
            self.set_progressing("True", NEW_REPLICA_SET_CREATED, created);
        }
        index
    }

    fn old_indices(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.new_set).collect()
    }

    fn old_sets(&self) -> impl Iterator<Item = &SetView> {
        let new_set = self.new_set;
        self.sets.iter().enumerate().filter(move |(index, _)| Some(*index) != new_set).map(|(_, set)| set)
    }

    fn by_age(&self, mut indices: Vec<usize>) -> Vec<usize> {
        indices.sort_by_key(|index| (self.sets[*index].created, self.sets[*index].name.clone()));
        indices
    }

    fn active(&self, indices: Vec<usize>) -> Vec<usize> {
        indices.into_iter().filter(|index| self.sets[*index].replicas > 0).collect()
    }

    /// Sum of `spec.replicas` over all sets.
    fn wanted_pods(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    /// Pods that are available and will stay. A set that was just made smaller tells of its surplus pods until its controller
    /// has counted again; unlike upstream, which trusts such a count of the new set, nothing is taken away for them.
    fn available_pods(&self) -> i32 {
        self.sets.iter().map(SetView::lasting).sum()
    }

    fn scale_set(&mut self, index: usize, to: i32) -> bool {
        let desired = Some(self.spec.replicas);
        let max = Some(self.spec.max_replicas());
        let set = &mut self.sets[index];
        let resized = set.replicas != to;
        if !resized && set.desired_annotation == desired && set.max_annotation == max {
            return false;
        }
        self.operations.push(Operation::Scale { name: set.name.clone(), from: set.replicas, to });
        set.replicas = to;
        set.desired_annotation = desired;
        set.max_annotation = max;
        resized
    }

    /// Somebody changed the size of the Deployment since its sets were last scaled.
    fn is_scaling_event(&self) -> bool {
        self.sets
            .iter()
            .any(|set| set.replicas > 0 && set.desired_annotation.is_some_and(|desired| desired != self.spec.replicas))
    }

    /// Reaches the Deployment's size without moving the rollout on.
    fn scale(&mut self) {
        let all: Vec<usize> = (0..self.sets.len()).collect();
        let active = self.active(all.clone());
        if active.len() <= 1 {
            let newest = self.by_age(all).last().copied();
            if let Some(index) = active.first().copied().or(self.new_set).or(newest)
                && self.sets[index].replicas != self.spec.replicas
            {
                self.scale_set(index, self.spec.replicas);
            }
            return;
        }
        if self.is_saturated() {
            for index in self.active(self.old_indices()) {
                self.scale_set(index, 0);
            }
            return;
        }
        if self.spec.strategy == Strategy::RollingUpdate {
            self.scale_proportionally(active);
        }
    }

    fn is_saturated(&self) -> bool {
        let Some(index) = self.new_set else {
            return false;
        };
        let set = &self.sets[index];
        set.replicas == self.spec.replicas
            && set.desired_annotation == Some(self.spec.replicas)
            && set.status.available == self.spec.replicas
    }

    /// A rollout under way that is resized keeps the shares of its sets; what rounding leaves over goes to the largest.
    fn scale_proportionally(&mut self, mut active: Vec<usize>) {
        let allowed = if self.spec.replicas > 0 { self.spec.max_replicas() } else { 0 };
        let existing: i32 = active.iter().map(|index| self.sets[*index].replicas).sum();
        let to_add = allowed - existing;
        let sets = &self.sets;
        if to_add > 0 {
            active.sort_by_key(|index| (Reverse(sets[*index].replicas), Reverse(sets[*index].created)));
        } else {
            active.sort_by_key(|index| (Reverse(sets[*index].replicas), sets[*index].created));
        }
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for index in &active {
            let share = self.proportion(*index, to_add, added);
            sizes.push(self.sets[*index].replicas + share);
            added += share;
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.scale_set(index, size);
        }
    }

    fn proportion(&self, index: usize, to_add: i32, added: i32) -> i32 {
        let set = &self.sets[index];
        if set.replicas == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let share = self.fraction(set);
        let allowed = to_add - added;
        if to_add > 0 { share.min(allowed) } else { share.max(allowed) }
    }

    fn fraction(&self, set: &SetView) -> i32 {
        if self.spec.replicas == 0 {
            return -set.replicas;
        }
        let before = match set.max_annotation {
            Some(max) if max > 0 => max,
            _ => self.current.replicas,
        };
        if before == 0 {
            return 0;
        }
        let product = i64::from(set.replicas) * i64::from(self.spec.max_replicas());
        // Round half away from zero; all values are positive here.
        let rounded = (2 * product + i64::from(before)) / (2 * i64::from(before));
        i32::try_from(rounded).unwrap_or(i32::MAX) - set.replicas
    }

    fn roll(&mut self) {
        let new_set = self.ensure_new_set();
        if self.grow_new_set(new_set) || self.shrink_old_sets(new_set) {
            return;
        }
        if self.current.is_complete(self.spec) {
            self.clean_up_history();
        }
    }

    fn grow_new_set(&mut self, new_set: usize) -> bool {
        let replicas = self.sets[new_set].replicas;
        if replicas == self.spec.replicas {
            return false;
        }
        let wanted =
            if replicas > self.spec.replicas { self.spec.replicas } else { self.wanted_new_replicas(replicas) };
        self.scale_set(new_set, wanted)
    }

    /// Size of the new set that the surge allows, where it has `replicas` now.
    fn wanted_new_replicas(&self, replicas: i32) -> i32 {
        if self.spec.strategy == Strategy::Recreate {
            return self.spec.replicas;
        }
        let room = self.spec.max_replicas() - self.wanted_pods();
        if room <= 0 {
            return replicas;
        }
        replicas + room.min(self.spec.replicas - replicas)
    }

    fn shrink_old_sets(&mut self, new_set: usize) -> bool {
        let old = self.by_age(self.active(self.old_indices()));
        if old.is_empty() {
            return false;
        }
        let min_available = self.spec.replicas - self.spec.max_unavailable;
        let new = &self.sets[new_set];
        let new_unavailable = new.replicas - new.lasting();
        let room = self.wanted_pods() - min_available - new_unavailable;
        if room <= 0 {
            return false;
        }
        // Upstream calls this an "invalid request to scale down" and waits for the next change, which is the set's own count.
        if old.iter().any(|index| self.sets[*index].has_surplus()) {
            return false;
        }
        // Pods that serve nobody go first: they would otherwise block the rollout for ever.
        let mut removed = 0;
        for index in &old {
            let set = &self.sets[*index];
            let unhealthy = set.replicas - set.status.available;
            let take = unhealthy.min(room - removed);
            if take > 0 {
                let to = set.replicas - take;
                self.scale_set(*index, to);
                removed += take;
            }
        }
        let mut spare = self.available_pods() - min_available;
        for index in old {
            let replicas = self.sets[index].replicas;
            let take = replicas.min(spare);
            if take > 0 {
                self.scale_set(index, replicas - take);
                spare -= take;
                removed += take;
            }
        }
        removed > 0
    }

    fn recreate(&mut self) {
        let mut scaled_down = false;
        for index in self.active(self.old_indices()) {
            scaled_down |= self.scale_set(index, 0);
        }
        // Pods that are still terminating hold what the new ones wait for, be it a volume or a port.
        let old_pods_exist = self.old_sets().any(|set| set.status.replicas > 0 || set.status.terminating > 0);
        if scaled_down || old_pods_exist {
            return;
        }
        let new_set = self.ensure_new_set();
        self.scale_set(new_set, self.spec.replicas);
        if self.current.is_complete(self.spec) {
            self.clean_up_history();
        }
    }

    fn clean_up_history(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else {
            return;
        };
        let mut old: Vec<&SetView> = self.old_sets().filter(|set| !set.deleting).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| (set.revision, set.created));
        let deletions: Vec<Operation> = old
            .into_iter()
            .take(surplus)
            .filter(|set| set.settled && set.replicas == 0 && set.status.replicas == 0)
            .map(|set| Operation::Delete { name: set.name.clone() })
            .collect();
        self.operations.extend(deletions);
    }

    fn calculate_status(&self) -> DeploymentStatus {
        let mut status = DeploymentStatus {
            observed_generation: self.spec.generation,
            collision_count: self.current.collision_count,
            conditions: self.current.conditions.clone(),
            ..DeploymentStatus::default()
        };
        for set in &self.sets {
            status.replicas += set.status.replicas;
            status.ready_replicas += set.status.ready;
            status.available_replicas += set.status.available;
            status.terminating_replicas += set.status.terminating;
        }
        if let Some(index) = self.new_set {
            status.updated_replicas = self.sets[index].status.replicas;
        }
        status.unavailable_replicas = (self.wanted_pods() - status.available_replicas).max(0);
        let enough = status.available_replicas >= self.spec.replicas - self.spec.max_unavailable;
        let (value, reason, message) = if enough {
            ("True", MINIMUM_REPLICAS_AVAILABLE, "Deployment has minimum availability.")
        } else {
            ("False", MINIMUM_REPLICAS_UNAVAILABLE, "Deployment does not have minimum availability.")
        };
        status.set_condition(Condition::new(AVAILABLE, value, reason, message.into(), self.now));
        status
    }

    /// The status of a rollout under way (`syncRolloutStatus` of Kubernetes), with what keeps its pods from being made.
    fn rollout_status(&mut self) -> (DeploymentStatus, Option<Timestamp>) {
        let (mut status, wake) = self.judged_status();
        let of_new_set = self.new_set.and_then(|index| self.sets[index].failure.as_ref());
        match of_new_set.or_else(|| self.sets.iter().find_map(|set| set.failure.as_ref())) {
            Some(failure) => status.set_condition(failure.clone()),
            None => status.remove_condition(REPLICA_FAILURE),
        }
        (status, wake)
    }

    /// The status with the rollout's progress judged.
    fn judged_status(&mut self) -> (DeploymentStatus, Option<Timestamp>) {
        let mut status = self.calculate_status();
        let Some(deadline) = self.spec.progress_deadline else {
            status.remove_condition(PROGRESSING);
            return (status, None);
        };
        let current = self.current.condition(PROGRESSING).cloned();
        let reason = current.as_ref().map(|condition| condition.reason.as_str());
        let was_complete = status.replicas == status.updated_replicas && reason == Some(NEW_REPLICA_SET_AVAILABLE);
        if was_complete {
            return (status, None);
        }
        if status.is_complete(self.spec) {
            let message = format!("{} has successfully progressed.", self.subject());
            status.set_condition(Condition::new(PROGRESSING, "True", NEW_REPLICA_SET_AVAILABLE, message, self.now));
            return (status, None);
        }
        if status.has_progressed_since(&self.current) {
            let message = format!("{} is progressing.", self.subject());
            let mut condition = Condition::new(PROGRESSING, "True", REPLICA_SET_UPDATED, message, self.now);
            // Progress renews the update time even where status and reason stay, so that the deadline starts anew.
            if let Some(current) = current.filter(|current| current.status == "True") {
                condition.last_transition_time = current.last_transition_time;
            }
            status.remove_condition(PROGRESSING);
            status.set_condition(condition);
        } else if self.has_timed_out(&status, deadline) {
            let message = format!("{} has timed out progressing.", self.subject());
            status.set_condition(Condition::new(PROGRESSING, "False", PROGRESS_DEADLINE_EXCEEDED, message, self.now));
        }
        let wake = Self::deadline_check(&status, deadline);
        (status, wake)
    }

    fn subject(&self) -> String {
        match self.new_set {
            Some(index) => format!("ReplicaSet \"{}\"", self.sets[index].name),
            None => format!("Deployment \"{}\"", self.spec.name),
        }
    }

    fn has_timed_out(&self, status: &DeploymentStatus, deadline: i64) -> bool {
        let Some(condition) = status.condition(PROGRESSING) else {
            return false;
        };
        match condition.reason.as_str() {
            NEW_REPLICA_SET_AVAILABLE => false,
            PROGRESS_DEADLINE_EXCEEDED => true,
            _ => condition.last_update_time.is_some_and(|from| after(from, seconds(deadline)) < self.now),
        }
    }

    /// Kubernetes looks one second after the deadline, because times in a status have no fractions.
    fn deadline_check(status: &DeploymentStatus, deadline: i64) -> Option<Timestamp> {
        let condition = status.condition(PROGRESSING)?;
        if [NEW_REPLICA_SET_AVAILABLE, PROGRESS_DEADLINE_EXCEEDED].contains(&condition.reason.as_str()) {
            return None;
        }
        Some(after(condition.last_update_time?, seconds(deadline.saturating_add(1))))
    }
}
