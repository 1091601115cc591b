#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// A Lease in memory, as an API server keeps it, and candidates around it. Time is a number.
struct World {
    start: Instant,
    now: Instant,
    lease: Option<Lease>,
    version: u64,
}

impl World {
    fn new() -> World {
        let start = Instant::now();
        World { start, now: start, lease: None, version: 0 }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn time(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH.checked_add(self.now - self.start).unwrap()
    }

    /// The answer to a write.
    fn put(&mut self, mut lease: Lease) -> Option<Lease> {
        let present = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if lease.metadata.resource_version != present {
            return None;
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Some(lease)
    }

    /// Lets a candidate act until it waits. Returns for how long, or that it has lost.
    fn act(&mut self, elector: &mut Elector) -> Result<f64, &'static str> {
        for _ in 0..10 {
            match elector.next(self.now, self.time()) {
                Step::Wait(wait) => return Ok(wait.as_secs_f64()),
                Step::Lost => return Err("lost"),
                Step::Read => elector.observe(self.lease.clone(), self.now),
                Step::Create(lease) | Step::Replace(lease) => match self.put(*lease) {
                    Some(lease) => elector.wrote(lease, self.now, self.now),
                    None => elector.failed(self.now),
                },
            }
        }
        panic!("it does not come to rest")
    }

    /// The same, with a watch that tells of every change.
    fn follow(&mut self, elector: &mut Elector) -> Result<f64, &'static str> {
        elector.hear(self.lease.clone(), self.now);
        self.act(elector)
    }

    fn spec(&self) -> &LeaseSpec {
        self.lease.as_ref().unwrap().spec.as_ref().unwrap()
    }
}

fn candidate(name: &str) -> Elector {
    Elector::new(name, "flagger-system", "lease", Timing::default())
}

#[test]
fn the_first_one_leads_and_renews_and_the_second_waits_for_the_lease_to_run_out() {
    let mut world = World::new();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    assert_eq!(world.act(&mut a), Ok(2.0));
    assert!(a.is_leading(world.now));
    assert_eq!(world.spec().holder_identity.as_deref(), Some("a"));
    assert_eq!((world.spec().lease_transitions, world.spec().lease_duration_seconds), (Some(0), Some(15)));
    assert_eq!(world.act(&mut b), Ok(15.0));
    world.pass(2.0);
    assert_eq!(world.act(&mut a), Ok(2.0));
    assert_ne!(world.spec().acquire_time, world.spec().renew_time);
    assert_eq!(world.follow(&mut b), Ok(15.0), "a renewal starts its wait anew");
    world.pass(14.9);
    assert!(world.act(&mut b).unwrap() < 0.2);
    assert!(!b.is_leading(world.now));
    world.pass(0.2);
    assert_eq!(world.act(&mut b), Ok(2.0));
    assert!(b.is_leading(world.now));
    assert_eq!((world.spec().holder_identity.as_deref(), world.spec().lease_transitions), (Some("b"), Some(1)));
    assert_eq!(world.act(&mut a), Err("lost"));
}

/// The clocks of two machines may differ by years; only their own differences count.
#[test]
fn times_of_another_machine_are_never_compared_with_a_clock() {
    let mut world = World::new();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    world.act(&mut a).unwrap();
    let long_ago = Some(micro(Timestamp::from_second(-1_000_000_000).unwrap()));
    world.lease.as_mut().unwrap().spec.as_mut().unwrap().renew_time = long_ago;
    assert_eq!(world.act(&mut b), Ok(15.0));
    // The holder says how long its lease is: a Flagger's is a minute.
    world.lease.as_mut().unwrap().spec.as_mut().unwrap().lease_duration_seconds = Some(60);
    assert_eq!(world.follow(&mut b), Ok(60.0));
    // A label is no renewal.
    world.pass(1.0);
    world.lease.as_mut().unwrap().metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    assert_eq!(world.follow(&mut b), Ok(59.0));
}

#[test]
fn a_leader_that_cannot_renew_stops_before_another_may_start() {
    let mut world = World::new();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    world.act(&mut a).unwrap();
    world.act(&mut b).unwrap();
    let start = world.now;
    while !matches!(a.next(world.now, world.time()), Step::Lost) {
        assert!(!b.is_leading(world.now));
        match a.next(world.now, world.time()) {
            Step::Wait(wait) => world.now += wait,
            _ => a.failed(world.now),
        }
    }
    assert_eq!((world.now - start).as_secs_f64(), 10.0);
    assert!(!a.is_leading(world.now));
    assert_eq!(world.act(&mut b), Ok(5.0));
}

/// The time of a renewal is when it was sent: the API server may have counted from then.
#[test]
fn a_late_answer_to_a_renewal_does_not_prolong_the_lease() {
    let mut world = World::new();
    let mut a = candidate("a");
    world.act(&mut a).unwrap();
    world.pass(2.0);
    let Step::Replace(lease) = a.next(world.now, world.time()) else { panic!("a renewal") };
    let sent = world.now;
    let answer = world.put(*lease).unwrap();
    // Stopped, and continued.
    world.pass(30.0);
    a.wrote(answer, sent, world.now);
    assert!(!a.is_leading(world.now));
    assert_eq!(world.act(&mut a), Err("lost"));
    assert_eq!(a.next(world.now, world.time()), Step::Lost, "and it stays so");
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let mut world = World::new();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    world.act(&mut a).unwrap();
    world.act(&mut b).unwrap();
    assert_eq!(b.release(world.now, world.time()), None, "it is not its to give");
    let released = a.release(world.now, world.time()).unwrap();
    world.put(released).unwrap();
    assert_eq!(world.spec().holder_identity.as_deref(), Some(""));
    assert_eq!(world.follow(&mut b), Ok(2.0));
    assert!(b.is_leading(world.now));
    assert_eq!(world.spec().lease_transitions, Some(1));
    world.pass(11.0);
    assert_eq!(b.release(world.now, world.time()), None, "not after its time");
}

#[test]
fn a_write_without_an_answer_is_looked_up() {
    let mut world = World::new();
    let mut a = candidate("a");
    assert_eq!(a.next(world.now, world.time()), Step::Read);
    a.observe(None, world.now);
    let Step::Create(lease) = a.next(world.now, world.time()) else { panic!("a creation") };
    world.put(*lease).unwrap();
    a.failed(world.now);
    let Step::Wait(wait) = a.next(world.now, world.time()) else { panic!("a wait") };
    assert!((2.0..=4.4).contains(&wait.as_secs_f64()), "{wait:?}");
    world.now += wait;
    assert_eq!(world.act(&mut a), Ok(2.0), "it was made, and need not run out");
    assert!(a.is_leading(world.now));
    assert_eq!(world.spec().lease_transitions, Some(0));
}

#[test]
fn a_deleted_lease_still_binds_those_who_saw_it() {
    let mut world = World::new();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    world.act(&mut a).unwrap();
    world.act(&mut b).unwrap();
    world.lease = None;
    world.pass(1.0);
    assert_eq!(world.follow(&mut b), Ok(14.0));
    assert_eq!(world.follow(&mut a), Ok(1.0));
    world.pass(1.0);
    assert_eq!(world.act(&mut a), Ok(2.0), "the leader makes it anew");
    assert_eq!(world.follow(&mut b), Ok(15.0));
}

#[test]
fn late_news_of_a_watch_is_no_news() {
    let mut world = World::new();
    let mut a = candidate("a");
    world.act(&mut a).unwrap();
    let mut old = world.lease.clone().unwrap();
    old.spec.as_mut().unwrap().holder_identity = Some("former".into());
    old.metadata.resource_version = Some("0".into());
    a.hear(Some(old), world.now);
    assert_eq!(world.act(&mut a), Ok(2.0));
    assert!(a.is_leading(world.now));
}

#[test]
fn tries_of_several_followers_are_spread() {
    let mut world = World::new();
    let waits: std::collections::BTreeSet<u128> = (0..20)
        .map(|number| {
            let mut elector = candidate(&format!("candidate-{number}"));
            elector.failed(world.now);
            let Step::Wait(wait) = elector.next(world.now, world.time()) else { panic!("a wait") };
            wait.as_millis()
        })
        .collect();
    assert!(waits.len() > 10, "{waits:?}");
    world.pass(4.5);
}
