//! The controller is killed over releases: at random moments, and between two writes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aviary_loadtest::random::Random;
use http::Method;
use parking_lot::Mutex;

use super::operator::Operator;
use super::subject::{IMAGES, RELEASE_PATIENCE, Subject};
use super::{ACCOUNT, SEED, Stage, eventually};
use crate::real::way::Way;
use crate::support::process::comes_true;

/// Releases at the same time: a kill hits some of them in every state.
const SUBJECTS: usize = 3;
/// The longest time from one kill to the next, beside the controller's coming up: several in a release.
const LONGEST_LIFE_MILLISECONDS: u64 = 6000;
/// What is not written any more by a controller that is killed between two writes, in the order of a release. What it has written
/// before must be enough for the next one to end the same: the state is written last. Moments as short as these are met by chance
/// in one of a thousand kills.
const AIMS: [&str; 4] =
    ["/virtualservices/podinfo", "/canaries/podinfo/status", "/deployments/podinfo-primary", "/deployments/podinfo"];

/// When the controller is killed.
#[derive(Debug)]
enum Moment {
    After(Duration),
    Before(&'static str),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::After(life) => write!(f, "after {life:?}"),
            Moment::Before(object) => write!(f, "before a write of {object}"),
        }
    }
}

/// Kills at random moments, of which every second is followed by a time without a controller, and as many between two writes.
pub async fn change_nothing(stage: &mut Stage, seed: u64) {
    println!("kills of seed {seed}: {SEED}={seed} cargo test --test main real::faults");
    let mut random = Random::new(seed);
    let trap = Arc::<Trap>::default();
    let way = way(stage, &trap).await;
    stage.kill_operator();
    start_operator(stage, &way).await;
    let subjects = Subject::create_all(&stage.client, "kills", SUBJECTS, 50.0).await;
    let (mut kills, mut releases) = (0, 0);
    let wanted = 2 * stage.size.kills;
    for image in IMAGES.iter().cycle() {
        if kills == wanted {
            break;
        }
        for subject in &subjects {
            subject.set_image(image).await;
        }
        while kills < wanted && !are_released(&subjects, image).await {
            let moment = moment(kills, &mut random);
            if !is_met(&moment, &trap, &subjects, image).await {
                break;
            }
            stage.kill_operator();
            trap.take_away();
            kills += 1;
            let away = if kills % 4 == 1 { stage.size.away } else { Duration::ZERO };
            stage.say(format!("kill {kills} {moment}, away for {away:?}"));
            tokio::time::sleep(away).await;
            start_operator(stage, &way).await;
        }
        for subject in &subjects {
            stage.ends_as_undisturbed(subject, image).await;
        }
        releases += SUBJECTS;
    }
    let mut requests = 0;
    for subject in &subjects {
        subject.assert_no_request_failed().await;
        requests += subject.requests();
    }
    stage.kill_operator();
    stage.start_operator().await;
    eventually("it runs", async || stage.operator.has_said("Started operator workers")).await;
    stage.say(format!("{kills} kills over {releases} releases, {requests} requests, none failed"));
}

/// The moment of the next kill, after so many.
fn moment(kills: usize, random: &mut Random) -> Moment {
    match kills % 2 {
        0 => Moment::After(Duration::from_millis(random.below(LONGEST_LIFE_MILLISECONDS))),
        _ => Moment::Before(AIMS[kills / 2 % AIMS.len()]),
    }
}

/// Waits for the moment; `false` if the releases have ended before.
async fn is_met(moment: &Moment, trap: &Trap, subjects: &[Subject], image: &str) -> bool {
    match moment {
        Moment::After(life) => tokio::time::sleep(*life).await,
        Moment::Before(object) => {
            trap.set(object);
            let is_over = async || trap.is_sprung() || are_released(subjects, image).await;
            assert!(comes_true(RELEASE_PATIENCE, is_over).await, "waited in vain for a write of {object}");
            return trap.has_sprung_by_now();
        }
    }
    true
}

async fn are_released(subjects: &[Subject], image: &str) -> bool {
    for subject in subjects {
        if !subject.has_released(image).await {
            return false;
        }
    }
    true
}

/// The controller's way to the API server, with a trap on it.
async fn way(stage: &Stage, trap: &Arc<Trap>) -> Way {
    let trap = Arc::clone(trap);
    Way::start(&stage.bench, ACCOUNT, move |method, path| {
        let trap = Arc::clone(&trap);
        async move { trap.pass(&method, &path).await }
    })
    .await
}

async fn start_operator(stage: &mut Stage, way: &Way) {
    let (kubeconfig, _) = way.kubeconfig(&stage.bench, ACCOUNT);
    stage.operator = Operator::start(&stage.bench, &kubeconfig, ACCOUNT, &[]).await;
}

/// Holds the first write of what it is set for, and those that follow it, until the controller is dead.
#[derive(Default)]
struct Trap(Mutex<State>);

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Off,
    Set(&'static str),
    Sprung,
}

impl Trap {
    async fn pass(&self, method: &Method, path: &str) {
        if *method == Method::GET || !self.springs(path) {
            return;
        }
        // The server drops this when its client has gone.
        std::future::pending().await
    }

    fn springs(&self, path: &str) -> bool {
        let mut state = self.0.lock();
        if matches!(*state, State::Set(object) if path.ends_with(object)) {
            *state = State::Sprung;
        }
        *state == State::Sprung && !path.contains("/events")
    }

    fn set(&self, object: &'static str) {
        *self.0.lock() = State::Set(object);
    }

    fn is_sprung(&self) -> bool {
        *self.0.lock() == State::Sprung
    }

    /// Takes it away if it has not sprung. Returns whether it has.
    fn has_sprung_by_now(&self) -> bool {
        let mut state = self.0.lock();
        if *state != State::Sprung {
            *state = State::Off;
        }
        *state == State::Sprung
    }

    fn take_away(&self) {
        *self.0.lock() = State::Off;
    }
}
