use std::time::Duration;

use aviary_sim::calls::Verb;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds::CONFIG_MAP;
use kube::api::{DeleteParams, ListParams, PostParams};
use tokio::time::{Instant, timeout};

use crate::support::{api, bare_cluster, config_map, config_maps, event};

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_hits_what_it_names_and_as_often_as_it_says() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    let id = cluster
        .faults()
        .add(Rule::new(Action::error(503)).client("aviary").verbs(&[Verb::Create]).resource("configmaps").nth(2));
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let refused = maps.create(&PostParams::default(), &config_map("b")).await.unwrap_err();
    assert_eq!(code(&refused), 503);
    assert!(cluster.store().get(&CONFIG_MAP, "default", "b").is_none(), "no effect");
    maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
    assert_eq!(cluster.faults().injected(), 1);
    cluster.faults().remove(id);

    cluster.faults().add(Rule::new(Action::too_many_requests(7)).writes().name("a"));
    maps.get("a").await.unwrap();
    let other = config_maps(&cluster.client("someone"));
    match other.delete("a", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 429);
            assert_eq!(status.details.unwrap().retry_after_seconds, 7);
        }
        other => panic!("{other:?}"),
    }
    cluster.faults().clear();
    other.delete("a", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn probabilities_follow_the_seed() {
    let pattern = async |seed: u64| {
        let cluster = bare_cluster(seed);
        let maps = config_maps(&cluster.client("aviary"));
        cluster.faults().add(Rule::new(Action::error(500)).probability(0.3));
        let mut outcomes = String::new();
        for _ in 0..100 {
            let failed = maps.list(&ListParams::default()).await.is_err();
            outcomes.push(if failed { 'x' } else { '.' });
        }
        outcomes
    };
    let first = pattern(5).await;
    let failures = first.matches('x').count();
    assert!((15..=45).contains(&failures), "{failures} of 100 at 0.3");
    assert_eq!(first, pattern(5).await);
    assert_ne!(first, pattern(6).await);
}

#[tokio::test(start_paused = true)]
async fn delays_pass_and_hanging_requests_never_do() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    cluster.faults().add(Rule::new(Action::Delay(Duration::from_secs(3))).times(1));
    let started = Instant::now();
    maps.list(&ListParams::default()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(3));
    cluster.faults().add(Rule::new(Action::Hang).writes());
    let (params, map) = (PostParams::default(), config_map("a"));
    let waited = timeout(Duration::from_secs(86_400), maps.create(&params, &map)).await;
    assert!(waited.is_err());
    assert!(cluster.store().get(&CONFIG_MAP, "default", "a").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_hides_a_write_that_happened() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    cluster.faults().add(Rule::new(Action::LoseResponse).writes().times(1));
    let error = maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err();
    assert!(!matches!(error, kube::Error::Api(_)), "{error:?}");
    assert!(cluster.store().get(&CONFIG_MAP, "default", "a").is_some());
    let again = maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err();
    assert_eq!(code(&again), 409);
}

#[tokio::test(start_paused = true)]
async fn a_client_dies_right_after_its_nth_write_and_can_come_back() {
    let cluster = bare_cluster(1);
    let client = cluster.client("aviary");
    let maps = config_maps(&client);
    let events = api(&client, "", "v1", "Event");
    cluster.faults().kill_client_after_writes("aviary", 2);
    let process = tokio::spawn(async move {
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        events.create(&PostParams::default(), &event("e")).await.unwrap();
        // Changes nothing, so it is no effect to die of.
        let same = maps.get("a").await.unwrap();
        maps.replace("a", &PostParams::default(), &same).await.unwrap();
        maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
        unreachable!("the answer to the second write must not arrive");
    });
    timeout(Duration::from_secs(60), cluster.faults().wait_killed("aviary")).await.unwrap();
    assert!(cluster.store().get(&CONFIG_MAP, "default", "b").is_some());
    assert!(cluster.faults().is_killed("aviary"));
    let others = config_maps(&cluster.client("someone"));
    others.get("b").await.unwrap();
    let dead = config_maps(&cluster.client("aviary"));
    let read = timeout(Duration::from_secs(3_600), dead.get("b")).await;
    assert!(read.is_err(), "every further request hangs");
    assert!(!process.is_finished());
    cluster.faults().revive("aviary");
    dead.get("b").await.unwrap();
    process.abort();
}

#[tokio::test(start_paused = true)]
async fn events_can_count_as_effects() {
    let cluster = bare_cluster(1);
    let client = cluster.client("aviary");
    cluster.faults().kill_client_after_writes_and_events("aviary", 1);
    let events = api(&client, "", "v1", "Event");
    let (params, about) = (PostParams::default(), event("e"));
    let write = timeout(Duration::from_secs(60), events.create(&params, &about)).await;
    assert!(write.is_err());
    assert!(cluster.faults().is_killed("aviary"));
}
