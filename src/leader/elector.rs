//! Who leads, as a state machine without clock, network or chance.
//!
//! The rules are those of client-go's `leaderelection`: a lease that was not renewed for as long as it says may be taken
//! by anybody, where the time since the last change is measured on the observer's own clock. Times that another machine
//! wrote are never compared with a clock here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

/// Tries of a follower are spread over one to this much more than one retry period, as in client-go (`JitterFactor`).
const JITTER: f64 = 1.2;
/// What a released lease says, as in client-go: whoever does not know that no holder means free waits for a second.
const RELEASED_SECONDS: i32 = 1;

/// Durations of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A lease that was not renewed for so long may be taken by another.
    pub lease: Duration,
    /// A leader that could not renew its lease for so long leads no more. Shorter than the lease.
    pub renew_deadline: Duration,
    /// Between two renewals, or tries.
    pub retry: Duration,
}

impl Default for Timing {
    /// Those of client-go and of the components of Kubernetes.
    fn default() -> Self {
        Timing {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing for so long, unless the lease changes.
    Wait(Duration),
    /// Read the lease.
    Read,
    /// Create the lease.
    Create(Box<Lease>),
    /// Replace the lease; it carries the version that was seen.
    Replace(Box<Lease>),
    /// Leadership is lost for good.
    Lost,
}

/// The lease as it was last seen, and since when, on our clock, its content is this.
struct Observed {
    lease: Lease,
    since: Instant,
}

impl Observed {
    fn spec(&self) -> &LeaseSpec {
        const NONE: &LeaseSpec = &LeaseSpec {
            acquire_time: None,
            holder_identity: None,
            lease_duration_seconds: None,
            lease_transitions: None,
            preferred_holder: None,
            renew_time: None,
            strategy: None,
        };
        self.lease.spec.as_ref().unwrap_or(NONE)
    }

    fn holder(&self) -> &str {
        self.spec().holder_identity.as_deref().unwrap_or_default()
    }

    /// When the holder's time is over, as far as we know. At once where nobody holds it.
    fn expires(&self) -> Instant {
        if self.holder().is_empty() {
            return self.since;
        }
        let seconds = self.spec().lease_duration_seconds.unwrap_or_default();
        self.since + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

/// What is known of the lease.
enum Knowledge {
    /// Nothing, or something that a write of ours may have changed.
    Unknown,
    /// There is none.
    Absent,
    Seen,
}

/// One candidate.
pub struct Elector {
    identity: String,
    namespace: String,
    name: String,
    timing: Timing,
    knowledge: Knowledge,
    /// Kept while nothing is known for certain: its time runs all the same.
    observed: Option<Observed>,
    /// While leading: when the last renewal that succeeded was sent. The lease lasts from then, or longer.
    renewed: Option<Instant>,
    next_try: Option<Instant>,
    tries: u64,
    lost: bool,
}

impl Elector {
    /// A candidate that knows nothing. `identity` must be another one in each process.
    pub fn new(identity: &str, namespace: &str, name: &str, timing: Timing) -> Elector {
        Elector {
            identity: identity.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            timing,
            knowledge: Knowledge::Unknown,
            observed: None,
            renewed: None,
            next_try: None,
            tries: 0,
            lost: false,
        }
    }

    /// Whether this candidate has the lease, as far as it knows, and could renew it in time.
    pub fn is_leading(&self, now: Instant) -> bool {
        !self.lost && self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// While leading: until when the lease must be renewed.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Who holds the lease, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref().map(Observed::holder).filter(|holder| !holder.is_empty())
    }

    /// The lease as it was last seen.
    pub fn lease(&self) -> Option<&Lease> {
        self.observed.as_ref().map(|observed| &observed.lease)
    }

    fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.renew_deadline)
    }

    /// What a watch tells of the lease; `None` for its deletion. It may be late.
    pub fn hear(&mut self, lease: Option<Lease>, now: Instant) {
        // Versions grow (Kubernetes 1.35, and every release on etcd before).
        if let (Some(lease), Some(observed)) = (&lease, &self.observed)
            && version(lease) < version(&observed.lease)
        {
            return;
        }
        self.observe(lease, now);
    }

    /// What the API server answers: the lease, or that there is none.
    pub fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let Some(lease) = lease else {
            self.knowledge = Knowledge::Absent;
            return;
        };
        self.knowledge = Knowledge::Seen;
        let is_same = self.observed.as_ref().is_some_and(|observed| observed.lease.spec == lease.spec);
        match &mut self.observed {
            // A label more is no renewal.
            Some(observed) if is_same => observed.lease = lease,
            observed => *observed = Some(Observed { lease, since: now }),
        }
        let is_ours = self.holder() == Some(&self.identity);
        if self.renewed.is_some() && !is_ours {
            self.lost = true;
        }
        // A follower that sees the lease change has no reason to wait for its next try.
        if self.renewed.is_none() && !is_same {
            self.next_try = None;
        }
    }

    /// What to do now. `time` is the time of day, for people who read the lease.
    pub fn next(&mut self, now: Instant, time: Timestamp) -> Step {
        if self.lost {
            return Step::Lost;
        }
        if let Some(deadline) = self.deadline() {
            if now >= deadline {
                self.lost = true;
                return Step::Lost;
            }
            return match self.next_try.filter(|next| now < *next) {
                Some(next) => Step::Wait(next.min(deadline) - now),
                None => self.attempt(time),
            };
        }
        if let Some(next) = self.next_try.filter(|next| now < *next) {
            return Step::Wait(next - now);
        }
        match (&self.knowledge, &self.observed) {
            (Knowledge::Unknown, _) => Step::Read,
            // Whoever held a lease that was deleted may not know it yet.
            (_, Some(observed)) if now < observed.expires() && observed.holder() != self.identity => {
                Step::Wait(observed.expires() - now)
            }
            _ => self.attempt(time),
        }
    }

    /// A write that makes or keeps this candidate the leader; or a look first.
    fn attempt(&self, time: Timestamp) -> Step {
        let is_ours = self.holder() == Some(&self.identity);
        let spec = self.observed.as_ref().map(Observed::spec);
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let acquired = spec.and_then(|spec| spec.acquire_time.clone()).filter(|_| is_ours);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.timing.lease)),
            acquire_time: Some(acquired.unwrap_or(micro(time))),
            renew_time: Some(micro(time)),
            lease_transitions: Some(if is_ours || spec.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        };
        match (&self.knowledge, &self.observed) {
            (Knowledge::Seen, Some(observed)) => {
                let metadata = ObjectMeta { managed_fields: None, ..observed.lease.metadata.clone() };
                Step::Replace(Box::new(Lease { metadata, spec: Some(spec) }))
            }
            (Knowledge::Absent, _) => {
                let (name, namespace) = (Some(self.name.clone()), Some(self.namespace.clone()));
                let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
                Step::Create(Box::new(Lease { metadata, spec: Some(spec) }))
            }
            (Knowledge::Unknown, _) | (Knowledge::Seen, None) => Step::Read,
        }
    }

    /// A write succeeded that was sent at `sent`.
    pub fn wrote(&mut self, lease: Lease, sent: Instant, now: Instant) {
        self.observe(Some(lease), now);
        if self.lost {
            return;
        }
        self.renewed = Some(sent);
        self.next_try = Some(sent + self.timing.retry);
    }

    /// A read or a write failed, or had no answer. A write may have been made nevertheless.
    pub fn failed(&mut self, now: Instant) {
        self.knowledge = Knowledge::Unknown;
        let wait = if self.renewed.is_some() { self.timing.retry } else { self.spread(self.timing.retry) };
        self.next_try = Some(now + wait);
    }

    /// The lease without a holder, for the others to take at once; `None` if it is not ours to give.
    pub fn release(&self, now: Instant, time: Timestamp) -> Option<Lease> {
        let observed = self.observed.as_ref()?;
        if !self.is_leading(now) || observed.holder() != self.identity {
            return None;
        }
        let metadata = ObjectMeta { managed_fields: None, ..observed.lease.metadata.clone() };
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(RELEASED_SECONDS),
            acquire_time: Some(micro(time)),
            renew_time: Some(micro(time)),
            lease_transitions: observed.spec().lease_transitions,
            ..LeaseSpec::default()
        };
        Some(Lease { metadata, spec: Some(spec) })
    }

    /// Up to [`JITTER`] times longer, differently for each candidate and each time.
    fn spread(&mut self, wait: Duration) -> Duration {
        self.tries += 1;
        let mut hasher = DefaultHasher::new();
        (&self.identity, self.tries).hash(&mut hasher);
        wait.mul_f64(1.0 + JITTER * (hasher.finish() % 1001) as f64 / 1000.0)
    }
}

fn version(lease: &Lease) -> u64 {
    lease.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Leases are counted in seconds; a part of one counts as a whole one.
pub(crate) fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn micro(time: Timestamp) -> MicroTime {
    MicroTime(time)
}

#[cfg(test)]
mod tests;
