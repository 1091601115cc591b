//! One kind in one scope: its list and its watch, for as long as the controller lives.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use aviary_providers::{ObjectKind, kinds};
use futures::{FutureExt, Stream, StreamExt, pin_mut};
use kube::core::DynamicObject;
use kube::runtime::watcher;
use tokio::time::Instant;

use super::forbidden;
use crate::cache::{Cache, KindState, Listing};
use crate::dialects;
use crate::messages::{CanariesChanged, CanaryId};
use crate::retry::Retry;
use crate::supervision::panic_text;

/// First and longest wait before a kind that is refused is asked for again, if anybody needs it. The first is short because an
/// API server that was started anew refuses what it will serve in a second. The longest is for CRDs that are installed and
/// rights that are granted by a person, who can wait a minute.
const REFUSED_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The same for the kinds of other systems, which most clusters do not serve: as often as an API server ends a watch, so that
/// a kind that is missing costs no more than one that is there.
const OPTIONAL_RETRY: Duration = Duration::from_secs(300);

fn longest_refusal(kind: &ObjectKind) -> Duration {
    if dialects::is_optional(kind) { OPTIONAL_RETRY } else { REFUSED_RETRY.1 }
}

/// A kind that was listed before is refused for this long before it is believed. An API server that was started anew knows
/// nobody's roles yet and forbids everything to everybody: for about a second, as seen with 1.36 on a busy machine.
const REFUSAL_DOUBTED: Duration = Duration::from_secs(10);

/// First and longest wait before a watch is opened again after an error, those of client-go.
const WATCH_RETRY: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

type Event = watcher::Result<watcher::Event<DynamicObject>>;

/// Feeds the cache with the objects of one kind, in one namespace or in all.
pub(super) struct Feed {
    pub(super) cache: Arc<Cache>,
    pub(super) kind: &'static ObjectKind,
    pub(super) namespace: Option<String>,
    pub(super) supervisor: Recipient<CanariesChanged>,
}

/// What one stream of events leaves to the next.
struct History {
    retry: Retry,
    refused_retry: Retry,
    listed_anew: Option<Instant>,
    /// Told once, not each minute.
    told: Option<KindState>,
    was_listed: bool,
    /// The first refusal after the last list.
    refused_since: Option<Instant>,
}

impl History {
    /// Whether a refusal may be that of an API server that has just been started.
    fn doubts_refusal(&mut self) -> bool {
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        self.was_listed && since.elapsed() < REFUSAL_DOUBTED
    }
}

impl Feed {
    /// Follows one stream of events after the other, and does not end.
    pub(super) async fn run<S: Stream<Item = Event>>(self, open: impl Fn() -> S) {
        let mut history = History {
            retry: Retry::new(WATCH_RETRY.0, WATCH_RETRY.1, self.kind),
            refused_retry: Retry::new(REFUSED_RETRY.0, longest_refusal(self.kind), self.kind),
            listed_anew: None,
            told: None,
            was_listed: false,
            refused_since: None,
        };
        loop {
            // Without it, a panic would silence this kind for good, and nobody would know.
            match AssertUnwindSafe(self.follow(open(), &mut history)).catch_unwind().await {
                Ok(()) => {}
                Err(payload) => {
                    let reason = panic_text(payload.as_ref());
                    tracing::error!(kind = self.kind.kind, "watch panicked, starting it again: {reason}");
                    tokio::time::sleep(history.retry.next_delay()).await;
                }
            }
        }
    }

    /// Follows a stream of events until it has to be replaced. Returns when it is time for the next one.
    async fn follow(&self, events: impl Stream<Item = Event>, history: &mut History) {
        pin_mut!(events);
        let mut listing = None;
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    match &event {
                        // A list that is tried once more is no success.
                        watcher::Event::Init => {}
                        _ => history.retry.reset(),
                    }
                    if matches!(event, watcher::Event::InitDone) {
                        history.told = None;
                        history.was_listed = true;
                        history.refused_since = None;
                        history.refused_retry.reset();
                    }
                    self.take(event, &mut listing);
                }
                None => {
                    tracing::warn!(kind = self.kind.kind, "watch ended, starting it again");
                    tokio::time::sleep(history.retry.next_delay()).await;
                    return;
                }
                Some(Err(error)) => {
                    if let Some(state) = refusal(&error) {
                        if history.doubts_refusal() {
                            tracing::warn!(kind = self.kind.kind, %error, "watch refused, retrying");
                            tokio::time::sleep(history.retry.next_delay()).await;
                            return;
                        }
                        self.note_refusal(state, &error, history);
                        tokio::time::sleep(history.refused_retry.next_delay()).await;
                        // No canary uses it: an idle cluster without that mesh or autoscaler is not asked for it.
                        if state == KindState::Unserved && !self.is_awaited() {
                            self.cache.missed(self.kind).await;
                        }
                        // Only a new list tells that the refusal is over: a watch may have nothing to tell.
                        return;
                    }
                    // An API server that was started anew does not remember what was before, and nothing is seen until
                    // the next list. It is away no longer, so nobody waits; but an API server that says so again and
                    // again is not asked for list upon list.
                    if is_expired(&error) && history.listed_anew.is_none_or(|last| last.elapsed() > WATCH_RETRY.1) {
                        tracing::info!(kind = self.kind.kind, "watch expired, listing anew");
                        history.listed_anew = Some(Instant::now());
                        continue;
                    }
                    // The stream comes back when it is asked again.
                    tracing::warn!(kind = self.kind.kind, %error, "watch failed, retrying");
                    tokio::time::sleep(history.retry.next_delay()).await;
                }
            }
        }
    }

    /// Whether nobody need look for an object of this kind before it is worth asking for: its objects are what is run, or
    /// belong to Canaries themselves.
    fn is_awaited(&self) -> bool {
        self.kind.group == kinds::CANARY.group || dialects::is_run(self.kind)
    }

    fn note_refusal(&self, state: KindState, error: &watcher::Error, history: &mut History) {
        if history.told != Some(state) {
            history.told = Some(state);
            let namespace = self.namespace.as_deref();
            match state {
                // Whoever has no such objects has no reason to grant it.
                KindState::Forbidden if dialects::is_optional(self.kind) => {
                    tracing::info!(namespace, %error, "{}", forbidden(self.kind));
                }
                KindState::Forbidden => tracing::error!(namespace, %error, "{}", forbidden(self.kind)),
                // Few clusters have every mesh and autoscaler. Canaries that need the kind tell it themselves.
                KindState::Unserved | KindState::Syncing | KindState::Synced => {
                    tracing::info!(
                        kind = self.kind.kind,
                        group = self.kind.group,
                        "kind is not served by the API server"
                    );
                }
            }
        }
        self.cache.set_kind(self.kind, self.namespace.as_deref(), state);
        self.supervisor.do_send(CanariesChanged::Listed);
    }

    fn take(&self, event: watcher::Event<DynamicObject>, listing: &mut Option<Listing>) {
        match event {
            watcher::Event::Init => *listing = Some(self.cache.begin_list(self.kind, self.namespace.as_deref())),
            watcher::Event::InitApply(object) => {
                if let Some(listing) = listing {
                    listing.note(self.kind, &object);
                }
                self.apply(object);
            }
            watcher::Event::InitDone => {
                if let Some(listing) = listing.take() {
                    self.cache.finish_list(listing);
                }
                self.cache.set_kind(self.kind, self.namespace.as_deref(), KindState::Synced);
                self.supervisor.do_send(CanariesChanged::Listed);
            }
            watcher::Event::Apply(object) => self.apply(object),
            watcher::Event::Delete(object) => {
                let id = self.id_of(&object);
                self.cache.remove(self.kind, &object);
                self.tell(id);
            }
        }
    }

    fn apply(&self, object: DynamicObject) {
        let id = self.id_of(&object);
        self.cache.apply(self.kind, object);
        self.tell(id);
    }

    fn id_of(&self, object: &DynamicObject) -> CanaryId {
        CanaryId {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            kind: self.kind,
        }
    }

    fn tell(&self, id: CanaryId) {
        if dialects::is_run(self.kind) {
            self.supervisor.do_send(CanariesChanged::One(id));
        }
    }
}

/// The status of an answer of the API server.
fn status(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status.code),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

/// What it means for the kind when the API server refuses it, rather than being unable to answer.
fn refusal(error: &watcher::Error) -> Option<KindState> {
    match status(error)? {
        401 | 403 => Some(KindState::Forbidden),
        404 => Some(KindState::Unserved),
        _ => None,
    }
}

fn is_expired(error: &watcher::Error) -> bool {
    !matches!(error, watcher::Error::InitialListFailed(_)) && status(error) == Some(410)
}

#[cfg(test)]
mod tests;
