//! Who may ask: callers with the token, for canaries of the namespaces that fit.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use regex::Regex;

/// Who may ask.
#[derive(Clone, Default)]
pub struct Access {
    /// Namespaces of canaries that fit; not anchored, as in Flagger.
    pub namespaces: Option<Regex>,
    /// What callers must know.
    pub token: Option<Token>,
}

/// A secret that callers share. It is never shown.
#[derive(Clone)]
pub struct Token(String);

/// This cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a token of 16 to 512 printable characters without spaces and colons")]
pub struct NoToken;

impl Token {
    /// A token, without the white space around it that files have.
    ///
    /// # Errors
    /// If it is short enough to be guessed, or could not be in a header.
    pub fn new(text: &str) -> Result<Token, NoToken> {
        let token = text.trim();
        let is_fit =
            (16..=512).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if is_fit { Ok(Token(token.to_owned())) } else { Err(NoToken) }
    }

    /// Whether these are the same, in a time that does not tell where they differ.
    fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let mut difference = u8::from(own.len() != given.len());
        for (index, byte) in own.iter().enumerate() {
            difference |= byte ^ given.get(index).copied().unwrap_or_default();
        }
        std::hint::black_box(difference) == 0
    }
}

impl Access {
    /// Whether the request has the token: `Authorization: Bearer TOKEN`, or as the password of `Basic`, which is what becomes
    /// of a webhook's URL such as `http://canary:TOKEN@flagger-loadtester.test/`.
    pub(super) fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let Some(given) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
        let (scheme, given) = given.split_at(given.iter().position(|byte| *byte == b' ').unwrap_or(given.len()));
        let given = given.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return token.is(given);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let Some(pair) = base64(given) else { return false };
        let password = pair.iter().position(|byte| *byte == b':').map_or(&[][..], |colon| &pair[colon + 1..]);
        token.is(password)
    }

    pub(super) fn admits(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| namespaces.is_match(namespace))
    }
}

/// What is in base64, with or without padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn access() -> Access {
        Access { token: Some(Token::new("correct-horse-battery\n").unwrap()), ..Access::default() }
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn callers_need_the_token_as_bearer_or_as_a_password() {
        let access = access();
        assert!(access.has_token(&with("Bearer correct-horse-battery")));
        // canary:correct-horse-battery
        assert!(access.has_token(&with("Basic Y2FuYXJ5OmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==")));
        let wrong = [
            "Bearer",
            "Bearer ",
            "Bearer correct-horse-batterx",
            "Bearer correct-horse-battery1",
            "Bearer correct",
            "Basic Y2FuYXJ5Og==",
            "Basic !",
            "correct-horse-battery",
            "Digest correct-horse-battery",
        ];
        for value in wrong {
            assert!(!access.has_token(&with(value)), "{value}");
        }
        assert!(!access.has_token(&HeaderMap::new()));
        assert!(Access::default().has_token(&HeaderMap::new()), "no token, no limit");
    }

    #[test]
    fn a_token_that_can_be_guessed_is_none() {
        for text in ["", "short", "with a space in it somewhere", "with:a:colon:in:it"] {
            assert!(Token::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn namespaces_are_matched_as_flagger_does() {
        let access = Access { namespaces: Some(Regex::new("team-").unwrap()), token: None };
        assert!(access.admits("team-a") && access.admits("my-team-b") && !access.admits("other"));
    }
}
