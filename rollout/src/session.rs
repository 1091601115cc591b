//! Session affinity: the cookies that keep clients on their side while a weighted canary is analysed.
//!
//! A cookie is derived from the canary's uid, the revision and the cookie of the run before, which the status keeps. So a
//! step that is made again after a crash gives the same cookie, although the status is written last; and the next run, even
//! of the same revision, gives another. (Flagger draws a new one when a status write meets a conflict, and its users move:
//! Q36.)

use std::fmt;

use sha2::{Digest, Sha256};

use crate::state::State;

/// Letters of a cookie's value: as many as Flagger's, some 57 bits.
const LETTERS: usize = 10;

/// What the cookies of a canary are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Uid of the canary object.
    pub canary_uid: String,
    /// Name of the cookie of clients of the canary.
    pub cookie_name: String,
    /// Name of the cookie of clients of the primary, if they have one.
    pub primary_cookie_name: Option<String>,
}

/// A cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl Cookie {
    /// Reads a cookie as the status stores it.
    fn parse(text: &str) -> Option<Cookie> {
        let (name, value) = text.split_once('=')?;
        // Flagger stores a nameless one where the primary has none.
        let usable = !name.is_empty() && !value.is_empty();
        usable.then(|| Cookie { name: name.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, self.value)
    }
}

/// The cookies of a canary in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies {
    /// Given to, and expected from, clients of the canary while it has weight.
    pub canary: Cookie,
    /// The same for the primary.
    pub primary: Option<Cookie>,
    /// Taken back from clients while the canary has no weight: the cookie of the run that ended last.
    pub former: Option<Cookie>,
}

impl Sessions {
    /// The cookies in this state. A stored one stays for the run, unless its name was changed.
    pub fn cookies(&self, state: &State) -> Cookies {
        let stored = |text: &Option<String>, name: &str| {
            text.as_deref().and_then(Cookie::parse).filter(|cookie| cookie.name == name)
        };
        let canary = stored(&state.session_cookie, &self.cookie_name)
            .unwrap_or_else(|| self.derive("canary", &self.cookie_name, state));
        let primary = self.primary_cookie_name.as_ref().map(|name| {
            stored(&state.primary_session_cookie, name).unwrap_or_else(|| self.derive("primary", name, state))
        });
        let former = state.session_cookie.as_deref().or(state.previous_session_cookie.as_deref());
        Cookies { canary, primary, former: former.and_then(Cookie::parse) }
    }

    fn derive(&self, side: &str, name: &str, state: &State) -> Cookie {
        let former = state.previous_session_cookie.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [side, &self.canary_uid, &state.last_applied, former] {
            hash.update(part);
            // No part holds one, so that no two lists of parts read the same.
            hash.update([0]);
        }
        let letter = |byte: &u8| {
            let index = byte % 52;
            char::from(if index < 26 { b'a' + index } else { b'A' + index - 26 })
        };
        Cookie { name: name.to_owned(), value: hash.finalize().iter().take(LETTERS).map(letter).collect() }
    }
}

/// Brings the cookies that are stored in line with the weight that `next` has. `present` is the state in which the step
/// was decided, from which its route was made.
pub(crate) fn settle(sessions: Option<&Sessions>, present: &State, next: &mut State) {
    if next.canary_weight == 0 {
        if let Some(cookie) = next.session_cookie.take() {
            next.previous_session_cookie = Some(cookie);
        }
        next.primary_session_cookie = None;
        return;
    }
    let Some(sessions) = sessions else { return };
    let cookies = sessions.cookies(present);
    next.session_cookie = Some(cookies.canary.to_string());
    next.primary_session_cookie = cookies.primary.map(|cookie| cookie.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions {
            canary_uid: "uid".into(),
            cookie_name: "canary-ck".into(),
            primary_cookie_name: Some("primary-ck".into()),
        }
    }

    fn applied(revision: &str) -> State {
        State { last_applied: revision.into(), ..State::default() }
    }

    #[test]
    fn a_cookie_is_ten_letters_and_the_same_each_time() {
        let cookies = sessions().cookies(&applied("b"));
        assert_eq!(cookies.canary.value.len(), LETTERS);
        assert!(cookies.canary.value.chars().all(|letter| letter.is_ascii_alphabetic()));
        assert_eq!(sessions().cookies(&applied("b")), cookies);
        assert_eq!(cookies.former, None);
        let others = [
            sessions().cookies(&applied("c")).canary,
            Sessions { canary_uid: "other".into(), ..sessions() }.cookies(&applied("b")).canary,
        ];
        assert!(others.iter().all(|other| other.value != cookies.canary.value), "{others:?}");
        assert_ne!(cookies.primary.map(|cookie| cookie.value), Some(cookies.canary.value));
    }

    #[test]
    fn a_run_keeps_its_cookie_and_the_next_one_has_another() {
        let present = applied("b");
        let given = sessions().cookies(&present).canary;
        let mut next = State { canary_weight: 10, ..present.clone() };
        settle(Some(&sessions()), &present, &mut next);
        assert_eq!(next.session_cookie, Some(given.to_string()));
        assert!(next.primary_session_cookie.as_deref().is_some_and(|cookie| cookie.starts_with("primary-ck=")));

        let running = State { last_applied: "c".into(), ..next.clone() };
        assert_eq!(sessions().cookies(&running).canary, given, "whatever else changes");
        let renamed = Sessions { cookie_name: "new".into(), ..sessions() };
        assert_eq!(renamed.cookies(&running).canary.name, "new");

        let mut ended = State { canary_weight: 0, ..next.clone() };
        assert_eq!(sessions().cookies(&ended).former, Some(given.clone()), "before the status says so");
        settle(Some(&sessions()), &next, &mut ended);
        assert_eq!((&ended.session_cookie, &ended.primary_session_cookie), (&None, &None));
        let again = sessions().cookies(&ended);
        assert_eq!(again.former, Some(given.clone()), "and afterwards");
        assert_ne!(again.canary, given, "the same revision once more");
    }

    #[test]
    fn a_nameless_cookie_of_flagger_is_none() {
        let state = State {
            primary_session_cookie: Some("=abcdefghij".into()),
            session_cookie: Some("canary-ck=AAAAAAAAAA".into()),
            ..applied("b")
        };
        let cookies = sessions().cookies(&state);
        assert_eq!(cookies.canary.value, "AAAAAAAAAA", "that of a run which Flagger began");
        assert_eq!(cookies.primary.map(|cookie| cookie.name).as_deref(), Some("primary-ck"));
    }
}
