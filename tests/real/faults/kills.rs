//! The controller is killed at random moments over releases.

use std::time::Duration;

use aviary_loadtest::random::Random;

use super::subject::{IMAGES, Subject};
use super::{SEED, Stage, eventually};

/// Releases at the same time: a kill hits some of them in every state.
const SUBJECTS: usize = 3;
/// The longest time from one kill to the next, beside the controller's coming up: several in a release.
const LONGEST_LIFE_MILLISECONDS: u64 = 6000;

/// Half of the kills are followed by the next life at once, half by a time without a controller.
pub async fn change_nothing(stage: &mut Stage, seed: u64) {
    println!("kills of seed {seed}: {SEED}={seed} cargo test --test main real::faults");
    let mut random = Random::new(seed);
    let subjects = Subject::create_all(&stage.client, "kills", SUBJECTS, 50.0).await;
    let (mut kills, mut releases) = (0, 0);
    for image in IMAGES.iter().cycle() {
        if kills == stage.size.kills {
            break;
        }
        for subject in &subjects {
            subject.set_image(image).await;
        }
        while kills < stage.size.kills && !are_released(&subjects, image).await {
            let life = Duration::from_millis(random.below(LONGEST_LIFE_MILLISECONDS));
            tokio::time::sleep(life).await;
            stage.kill_operator();
            kills += 1;
            let away = if kills % 2 == 0 { stage.size.away } else { Duration::ZERO };
            stage.say(format!("kill {kills} after {life:?}, away for {away:?}"));
            tokio::time::sleep(away).await;
            stage.start_operator().await;
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
    eventually("it runs", async || stage.operator.has_said("Started operator workers")).await;
    stage.say(format!("{kills} kills over {releases} releases, {requests} requests, none failed"));
}

async fn are_released(subjects: &[Subject], image: &str) -> bool {
    for subject in subjects {
        if !subject.has_released(image).await {
            return false;
        }
    }
    true
}
