use std::time::Duration;

use aviary_sim::apiserver::ServerOptions;
use aviary_sim::store::kinds::{CONFIG_MAP, SECRET};
use aviary_sim::{Cluster, ClusterOptions};
use futures::StreamExt;
use kube::api::{ListParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use tokio::time::Instant;

use crate::support::{bare_cluster, config_map, config_maps};

async fn version(maps: &kube::Api<kube::api::DynamicObject>) -> String {
    let list = maps.list(&ListParams::default()).await.unwrap();
    list.metadata.resource_version.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_compacted_version_gets_410_in_the_stream_and_for_pages() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let old = version(&maps).await;
    let page = maps.list(&ListParams::default().limit(1)).await.unwrap();
    maps.create(&PostParams::default(), &config_map("d")).await.unwrap();
    cluster.faults().compact();
    let mut stream = Box::pin(maps.watch(&WatchParams::default(), &old).await.unwrap());
    match stream.next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
            assert!(status.message.starts_with("too old resource version: "));
        }
        other => panic!("{other:?}"),
    }
    assert!(stream.next().await.is_none());

    let token = page.metadata.continue_.unwrap();
    let refused = maps.list(&ListParams::default().limit(1).continue_token(&token)).await;
    match refused {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
            let token = status.metadata.unwrap().continue_.unwrap();
            let rest = maps.list(&ListParams::default().continue_token(&token)).await.unwrap();
            assert_eq!(rest.items.len(), 3, "goes on with the present objects");
        }
        other => panic!("{other:?}"),
    }
    let fresh = version(&maps).await;
    let mut stream = Box::pin(maps.watch(&WatchParams::default(), &fresh).await.unwrap());
    maps.create(&PostParams::default(), &config_map("e")).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Added(_)))));
}

#[tokio::test(start_paused = true)]
async fn dropped_watches_end_by_kind() {
    let cluster = bare_cluster(1);
    let maps = config_maps(&cluster.client("aviary"));
    let start = version(&maps).await;
    let open = async || Box::pin(maps.watch(&WatchParams::default().timeout(100), &start).await.unwrap());
    let mut stream = open().await;
    cluster.faults().drop_watches(Some(&SECRET));
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Added(_)))));
    let started = Instant::now();
    cluster.faults().drop_watches(Some(&CONFIG_MAP));
    assert!(stream.next().await.is_none());
    assert_eq!(started.elapsed(), Duration::ZERO);
    let mut stream = open().await;
    assert!(stream.next().await.is_some(), "can be resumed");
    cluster.faults().drop_watches(None);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_server_ends_watches_after_a_time_drawn_from_the_seed() {
    let lifetimes = async |seed: u64| {
        let cluster = Cluster::new(ClusterOptions {
            controllers: None,
            seed,
            server: ServerOptions {
                watch_lifetime: (Duration::from_secs(10), Duration::from_secs(20)),
                ..ServerOptions::default()
            },
            ..ClusterOptions::default()
        });
        let maps = config_maps(&cluster.client("aviary"));
        let start = version(&maps).await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            let started = Instant::now();
            let params = WatchParams::default().timeout(290);
            let mut stream = Box::pin(maps.watch(&params, &start).await.unwrap());
            while stream.next().await.is_some() {}
            seen.push(started.elapsed());
        }
        seen
    };
    let first = lifetimes(1).await;
    for lifetime in &first {
        let seconds = lifetime.as_secs();
        assert!((10..=20).contains(&seconds), "{lifetime:?}");
    }
    assert!(first.windows(2).any(|pair| pair[0] != pair[1]));
    assert_eq!(first, lifetimes(1).await);
    assert_ne!(first, lifetimes(2).await);
}
