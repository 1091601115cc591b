//! Users who meet the conditions of an A/B test: without them its canary would see nobody.

use std::collections::BTreeMap;

use aviary_crds::service::{HttpMatchRequest, StringMatch};
use regex_syntax::hir::{Hir, HirKind};

/// Headers of a user whom the first of these conditions admits that speaks of headers only. `None` if there is none, or no
/// text can be found that it admits.
pub(crate) fn headers(matches: &[HttpMatchRequest]) -> Option<BTreeMap<String, String>> {
    matches.iter().find_map(|request| {
        let speaks_of_headers_only = request.method.is_none()
            && request.authority.is_none()
            && request.query_params.is_empty()
            && request.source_labels.is_empty();
        if request.headers.is_empty() || !speaks_of_headers_only {
            return None;
        }
        let headers = request.headers.iter().map(|(name, wanted)| Some((name.to_ascii_lowercase(), text(wanted)?)));
        headers.collect()
    })
}

/// A text that meets the condition.
fn text(wanted: &StringMatch) -> Option<String> {
    let StringMatch { exact, prefix, suffix, regex, .. } = wanted;
    if let Some(regex) = regex {
        return from_regex(regex);
    }
    Some(exact.as_ref().or(prefix.as_ref()).or(suffix.as_ref()).map_or_else(|| "1".to_owned(), Clone::clone))
}

/// The shortest text of an expression, nearly: of alternatives the first, of classes the first letter or digit.
fn from_regex(regex: &str) -> Option<String> {
    let hir = regex_syntax::parse(regex).ok()?;
    let mut text = Vec::new();
    append(&hir, &mut text)?;
    String::from_utf8(text).ok()
}

fn append(hir: &Hir, text: &mut Vec<u8>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(class) => text.push(letter(class)?),
        HirKind::Repetition(repetition) => {
            // More would be a test of the regex engine.
            for _ in 0..repetition.min.min(1_000) {
                append(&repetition.sub, text)?;
            }
        }
        HirKind::Capture(capture) => append(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| append(part, text))?,
        HirKind::Alternation(choices) => append(choices.first()?, text)?,
    }
    Some(())
}

fn letter(class: &regex_syntax::hir::Class) -> Option<u8> {
    use regex_syntax::hir::Class;
    let holds = |letter: u8| match class {
        Class::Unicode(class) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&char::from(letter)))
        }
        Class::Bytes(class) => class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&letter)),
    };
    (b'a'..=b'z').chain(b'0'..=b'9').chain(b' '..=b'~').find(|letter| holds(*letter))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn expressions_get_a_text_that_they_admit() {
        for (regex, expected) in [
            ("^(.*?;)?(type=insider)(;.*)?$", "type=insider"),
            (".*Firefox.*", "Firefox"),
            ("(a|b)[0-9]{2}", "a00"),
            ("canary-[^a-m]+", "canary-n"),
        ] {
            assert_eq!(from_regex(regex).as_deref(), Some(expected), "{regex}");
        }
        assert_eq!(from_regex("("), None);
    }

    #[test]
    fn conditions_on_something_else_than_headers_are_passed_over() {
        let matches: Vec<HttpMatchRequest> = serde_json::from_value(serde_json::json!([
            {"uri": {"prefix": "/"}},
            {"headers": {"X-Canary": {"exact": "insider"}, "a": {}}},
        ]))
        .unwrap();
        let expected = [("x-canary", "insider"), ("a", "1")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(headers(&matches), Some(BTreeMap::from(expected)));
        assert_eq!(headers(&matches[..1]), None);
    }
}
