//! How repeated events become one, after `EventCorrelator` of client-go: the same message raises a count, and from the tenth
//! different message of a reason on they are told together. Its limit of events per object is left out: a rollout's story
//! stays whole.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

/// Different messages of one reason that are told one by one (`defaultAggregateMaxEvents`).
const MAX_SIMILAR: usize = 10;
/// Silence after which similar events are told one by one again (`defaultAggregateIntervalInSeconds`).
const SIMILAR_INTERVAL: SignedDuration = SignedDuration::from_secs(600);
/// Reasons and messages that are remembered, each (`maxLruCacheEntries`). Beyond it everything is forgotten, which costs no more
/// than an event that is stored anew.
const MAX_REMEMBERED: usize = 4_096;

/// What similar events have in common: the object, who tells of it, type and reason, in one text.
pub(super) type Subject = String;

/// What was told of lately.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    similar: HashMap<Subject, Similar>,
    /// Name of the stored event by subject and message; without a message it is the one that tells of similar events.
    told: HashMap<(Subject, Option<String>), String>,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The event that was stored for it before.
    pub(super) before: Option<String>,
    /// The message that is stored.
    pub(super) message: String,
    key: (Subject, Option<String>),
}

impl EventLog {
    /// Finds out how an event is told now.
    pub(super) fn tell(&mut self, subject: Subject, message: &str, now: Timestamp) -> Told {
        if self.similar.len() >= MAX_REMEMBERED || self.told.len() >= MAX_REMEMBERED {
            self.similar.clear();
            self.told.clear();
        }
        let similar =
            self.similar.entry(subject.clone()).or_insert_with(|| Similar { messages: BTreeSet::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_INTERVAL {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(message.to_owned());
        let (key, message) = if similar.messages.len() < MAX_SIMILAR {
            ((subject, Some(message.to_owned())), message.to_owned())
        } else {
            // Upstream forgets one of the messages so that the set does not grow; which one is left to chance there.
            similar.messages.pop_first();
            ((subject, None), format!("(combined from similar events): {message}"))
        };
        Told { before: self.told.get(&key).cloned(), message, key }
    }

    /// Remembers under which name an event was stored.
    pub(super) fn remember(&mut self, told: Told, name: String) {
        self.told.insert(told.key, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn the_same_message_is_the_same_event() {
        let mut log = EventLog::default();
        let first = log.tell("pod/a".to_owned(), "Back-off", at(0));
        assert_eq!((first.before.as_deref(), first.message.as_str()), (None, "Back-off"));
        log.remember(first, "a.1".to_owned());
        assert_eq!(log.tell("pod/a".to_owned(), "Back-off", at(5000)).before.as_deref(), Some("a.1"));
        assert_eq!(log.tell("pod/b".to_owned(), "Back-off", at(5000)).before, None);
    }

    #[test]
    fn the_tenth_different_message_is_told_with_those_that_follow() {
        let mut log = EventLog::default();
        let mut tell = |number: i64, second| {
            let told = log.tell("set/a".to_owned(), &format!("Created pod: a-{number}"), at(second));
            let message = told.message.clone();
            let before = told.before.clone();
            log.remember(told, format!("a.{number}"));
            (message, before)
        };
        for number in 1..10 {
            assert_eq!(tell(number, 0), (format!("Created pod: a-{number}"), None));
        }
        assert_eq!(tell(10, 0), ("(combined from similar events): Created pod: a-10".to_owned(), None));
        let combined = ("(combined from similar events): Created pod: a-11".to_owned(), Some("a.10".to_owned()));
        assert_eq!(tell(11, 600), combined);
        assert_eq!(tell(12, 1201), ("Created pod: a-12".to_owned(), None), "after a silence");
    }
}
