//! Watch streams: the present objects or the missed changes, then every later change, bookmarks, and an end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::response::Encoder;
use super::selectors::Selectors;
use crate::store::{Change, ChangeType, Record, StatusError, Store, WatchFeed, to_bytes};

/// How a watch ends and what it tells in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchTiming {
    pub(crate) lifetime: Duration,
    /// Time between bookmarks; `None` for a client that did not allow them.
    pub(crate) bookmarks: Option<Duration>,
    /// Whether the end of the initial events is marked.
    pub(crate) mark_initial_end: bool,
}

/// An open watch.
pub(crate) struct WatchStream {
    store: Store,
    encoder: Encoder,
    selectors: Selectors,
    queue: VecDeque<Queued>,
    changes: Option<mpsc::Receiver<Arc<Change>>>,
    end: Pin<Box<Sleep>>,
    bookmarks: Option<Bookmarks>,
    /// A bookmark that is due; it goes out once every change up to its version has.
    due_bookmark: Option<u64>,
}

/// When bookmarks come: once in a period, and shortly before the watch ends, so that its client goes on from there.
struct Bookmarks {
    period: Duration,
    timer: Pin<Box<Sleep>>,
    /// The version that the client knows already.
    known: u64,
}

/// How long before its end a watch tells its version (`nextBookmarkTime` of the API server's watch cache).
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

impl Bookmarks {
    fn new(period: Duration, end: Instant, known: u64) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(Self::next(period, end)));
        Self { period, timer, known }
    }

    fn next(period: Duration, end: Instant) -> Instant {
        let now = Instant::now();
        let regular = now + period;
        match end.checked_sub(LAST_BOOKMARK_BEFORE_END) {
            Some(last) if last > now => regular.min(last),
            _ => regular,
        }
    }
}

enum Queued {
    Initial(Arc<Record>),
    Missed(Arc<Change>),
    Line(Bytes),
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WatchStream")
            .field("kind", &self.encoder.kind)
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl WatchStream {
    pub(crate) fn new(
        store: Store,
        encoder: Encoder,
        selectors: Selectors,
        feed: WatchFeed,
        timing: WatchTiming,
    ) -> Self {
        let mut queue: VecDeque<Queued> = feed
            .initial
            .into_iter()
            .filter(|record| selectors.is_empty() || selectors.selects(record))
            .map(Queued::Initial)
            .collect();
        if timing.mark_initial_end {
            let bookmark = encoder.bookmark(feed.revision, true);
            queue.push_back(Queued::Line(line("BOOKMARK", &bookmark)));
        }
        queue.extend(feed.missed.into_iter().map(Queued::Missed));
        let end = Box::pin(tokio::time::sleep(timing.lifetime));
        Self {
            store,
            encoder,
            selectors,
            queue,
            changes: Some(feed.changes),
            bookmarks: timing.bookmarks.map(|period| Bookmarks::new(period, end.deadline(), feed.revision)),
            end,
            due_bookmark: None,
        }
    }

    /// A watch that only says why it cannot be served, as the API server's watch cache does: the error is an event of a stream
    /// that was opened with 200.
    pub(crate) fn refused(store: Store, encoder: Encoder, error: &StatusError) -> Self {
        let refusal = line("ERROR", &to_bytes(&error.to_value()));
        Self {
            store,
            encoder,
            selectors: Selectors::default(),
            queue: VecDeque::from([Queued::Line(refusal)]),
            changes: None,
            end: Box::pin(tokio::time::sleep(Duration::ZERO)),
            bookmarks: None,
            due_bookmark: None,
        }
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while let Some(queued) = self.queue.pop_front() {
            let line = match queued {
                Queued::Line(line) => Some(line),
                Queued::Initial(record) => Some(line("ADDED", &self.encoder.object(&record))),
                Queued::Missed(change) => self.encode(&change),
            };
            if let Some(line) = line {
                return Poll::Ready(Some(line));
            }
        }
        if self.changes.is_none() || self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.poll_bookmark_timer(context);
        loop {
            let Some(changes) = &mut self.changes else {
                return Poll::Ready(None);
            };
            match changes.poll_recv(context) {
                Poll::Ready(Some(change)) => {
                    if let Some(line) = self.encode(&change) {
                        return Poll::Ready(Some(line));
                    }
                }
                Poll::Ready(None) => {
                    self.changes = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => break,
            }
        }
        match self.due_bookmark.take() {
            Some(version) => {
                let bookmark = self.encoder.bookmark(version, false);
                Poll::Ready(Some(line("BOOKMARK", &bookmark)))
            }
            None => Poll::Pending,
        }
    }

    fn poll_bookmark_timer(&mut self, context: &mut Context<'_>) {
        let Some(bookmarks) = &mut self.bookmarks else {
            return;
        };
        while bookmarks.timer.as_mut().poll(context).is_ready() {
            // Read before the changes are drained: every change up to this version is already in the channel.
            let version = self.store.revision();
            if version > bookmarks.known {
                bookmarks.known = version;
                self.due_bookmark = Some(version);
            }
            let next = Bookmarks::next(bookmarks.period, self.end.deadline());
            bookmarks.timer.as_mut().reset(next);
        }
    }

    /// The event as this watch sees it: an object may enter or leave the selection by a change of its own.
    fn encode(&self, change: &Change) -> Option<Bytes> {
        let selected = |record: &Record| self.selectors.is_empty() || self.selectors.selects(record);
        let before = change.previous.as_deref().is_some_and(selected);
        let after = change.change != ChangeType::Deleted && selected(&change.record);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(line("ADDED", &self.encoder.object(&change.record))),
            (true, true) => Some(line("MODIFIED", &self.encoder.object(&change.record))),
            (true, false) => Some(line("DELETED", &self.last_selected(change))),
        }
    }

    /// What a DELETED event carries: the object's last state in the selection under the version of the change.
    fn last_selected(&self, change: &Change) -> Bytes {
        if change.change == ChangeType::Deleted {
            return self.encoder.object(&change.record);
        }
        let previous = change.previous.as_deref().unwrap_or(&change.record);
        let mut value = previous.to_value();
        value["metadata"]["resourceVersion"] = serde_json::Value::String(change.resource_version().to_string());
        self.encoder.object(&Record::new(value, change.resource_version(), Some(previous)))
    }
}

fn line(event: &str, object: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(object.len() + 40);
    bytes.extend_from_slice(b"{\"type\":\"");
    bytes.extend_from_slice(event.as_bytes());
    bytes.extend_from_slice(b"\",\"object\":");
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b"}\n");
    Bytes::from(bytes)
}
