#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Actor, Context, Handler};
use futures::stream::{self, BoxStream};
use kube::core::Status;
use serde_json::json;

use super::*;
use crate::cache::key_of;

struct Nobody;
impl Actor for Nobody {
    type Context = Context<Self>;
}
impl Handler<CanariesChanged> for Nobody {
    type Result = ();
    fn handle(&mut self, _: CanariesChanged, _: &mut Context<Self>) {}
}

fn config_map(version: &str) -> DynamicObject {
    let metadata = json!({"namespace": "a", "name": "x", "resourceVersion": version});
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})).unwrap()
}

fn list() -> Vec<Event> {
    use watcher::Event::{Init, InitApply, InitDone};
    vec![Ok(Init), Ok(InitApply(config_map("5"))), Ok(InitDone)]
}

fn refused(code: u16) -> Vec<Event> {
    let status = Status { code, ..Status::default() };
    vec![Ok(watcher::Event::Init), Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))]
}

/// A feed of ConfigMaps; its first stream is `first`, the later ones are lists.
fn start(first: impl Fn() -> BoxStream<'static, Event> + 'static) -> (Arc<Cache>, Arc<AtomicUsize>) {
    start_with(move |number| if number == 0 { first() } else { healthy() })
}

fn healthy() -> BoxStream<'static, Event> {
    stream::iter(list()).chain(stream::pending()).boxed()
}

/// A feed of ConfigMaps whose streams are counted from 0.
fn start_with(open: impl Fn(usize) -> BoxStream<'static, Event> + 'static) -> (Arc<Cache>, Arc<AtomicUsize>) {
    let cache = Arc::new(Cache::default());
    let opened = Arc::new(AtomicUsize::new(0));
    let supervisor = Nobody.start().recipient();
    let feed = Feed { cache: cache.clone(), kind: &kinds::CONFIG_MAP, namespace: Some("a".into()), supervisor };
    let count = opened.clone();
    actix_rt::spawn(feed.run(move || open(count.fetch_add(1, Ordering::Relaxed))));
    (cache, opened)
}

async fn assert_back(cache: &Cache, opened: &AtomicUsize, within: Duration) {
    tokio::time::sleep(within).await;
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    assert_eq!(cache.kind(&kinds::CONFIG_MAP, "a"), Some(KindState::Synced));
    assert!(cache.contains(&key_of(&kinds::CONFIG_MAP, &config_map("5")).unwrap()));
}

/// actix' own test macro cannot pause the clock.
fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_watch_that_panics_is_started_again() {
    in_virtual_time(async {
        let (cache, opened) = start(|| stream::once(async { panic!("a bad object") }).boxed());
        assert_back(&cache, &opened, Duration::from_secs(2)).await;
    });
}

#[test]
fn a_watch_that_ends_is_started_again_but_not_at_once() {
    in_virtual_time(async {
        let (cache, opened) = start(|| stream::empty().boxed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        assert_back(&cache, &opened, Duration::from_secs(2)).await;
    });
}

#[test]
fn a_forbidden_kind_holds_nobody_up_and_is_asked_for_ever_more_rarely() {
    for (code, state) in [(401, KindState::Forbidden), (403, KindState::Forbidden), (404, KindState::Unserved)] {
        in_virtual_time(async move {
            let (cache, opened) = start_with(move |_| stream::iter(refused(code)).chain(stream::pending()).boxed());
            cache.set_kind(&kinds::CONFIG_MAP, Some("a"), KindState::Syncing);
            assert!(!cache.is_synced());
            cache.miss(&kinds::CONFIG_MAP);
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(cache.kind(&kinds::CONFIG_MAP, "a"), Some(state));
            assert!(cache.is_synced());
            // After 1, 2, 4 … 32 seconds, each ±20 %, and then once a minute.
            tokio::time::sleep(Duration::from_secs(600)).await;
            let tries = opened.load(Ordering::Relaxed);
            assert!((14..=18).contains(&tries), "{tries}");
        });
    }
}

/// An API server that was started anew forbids everything for a second, also to an operator that starts just then.
#[test]
fn a_refusal_of_the_first_list_is_over_in_a_moment() {
    in_virtual_time(async {
        let (cache, opened) = start(|| stream::iter(refused(403)).chain(stream::pending()).boxed());
        assert_back(&cache, &opened, Duration::from_secs(2)).await;
    });
}

#[test]
fn a_kind_that_is_not_served_is_not_asked_for_again_before_somebody_needs_it() {
    in_virtual_time(async {
        let (cache, opened) = start(|| stream::iter(refused(404)).chain(stream::pending()).boxed());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(opened.load(Ordering::Relaxed), 1, "nobody needs it");
        cache.miss(&kinds::SECRET);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(opened.load(Ordering::Relaxed), 1, "that is another kind");
        cache.miss(&kinds::CONFIG_MAP);
        assert_back(&cache, &opened, Duration::from_secs(1)).await;
    });
}

/// Found on a real API server that was started anew: it forbade everything for a second.
#[test]
fn a_refusal_after_a_list_is_doubted_at_first() {
    in_virtual_time(async {
        let (cache, opened) = start(|| {
            let status = Status { code: 403, ..Status::default() };
            let refused = Err(watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status))));
            stream::iter(list()).chain(stream::iter([refused])).chain(stream::pending()).boxed()
        });
        assert_back(&cache, &opened, Duration::from_secs(2)).await;
    });
}

#[test]
fn a_right_that_is_taken_away_is_noticed_and_its_return_too() {
    in_virtual_time(async {
        let returned = Instant::now() + Duration::from_secs(30);
        let (cache, _) = start_with(move |number| match number {
            0 => stream::iter(list()).chain(stream::iter(refused(403))).chain(stream::pending()).boxed(),
            _ if Instant::now() < returned => stream::iter(refused(403)).chain(stream::pending()).boxed(),
            _ => healthy(),
        });
        let state = || cache.kind(&kinds::CONFIG_MAP, "a");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(state(), Some(KindState::Synced), "it may be a moment");
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(state(), Some(KindState::Forbidden));
        // It was refused for half a minute, so the next try comes within about as long again.
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(state(), Some(KindState::Synced));
    });
}
