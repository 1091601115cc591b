//! What is wrong with a text that is not PromQL, and where.

use promql_parser::parser;

/// Longest text in which the place of an error is looked for; finding it reads the text once for each of its letters.
const LONGEST: usize = 2_000;

/// `1:5: parse error: unclosed left parenthesis`, as Prometheus says it. The parser tells places of nothing; where its lexer gives
/// up is found by giving it less and less, and the place of what is wrong in the grammar stays unknown.
pub(crate) fn describe(text: &str, reason: &str) -> String {
    if text.trim().is_empty() {
        return "unknown position: parse error: no expression found in input".to_owned();
    }
    match place(text, reason) {
        Some((line, column)) => format!("{line}:{column}: parse error: {reason}"),
        None => format!("parse error: {reason}"),
    }
}

/// Line and column, both counted from 1.
fn place(text: &str, reason: &str) -> Option<(usize, usize)> {
    let fails_alike = |text: &str| parser::lexer(text).is_err_and(|error| error == reason);
    if text.len() > LONGEST || !fails_alike(text) {
        return None;
    }
    let is_at_end = reason.starts_with("unclosed") || reason.contains("end of input") || reason.contains("at the end");
    let mut offset = text.len();
    if !is_at_end {
        let offsets = text.char_indices().rev().map(|(offset, _)| offset);
        for shorter in offsets {
            offset = shorter;
            if !fails_alike(text.get(..shorter).unwrap_or_default()) {
                break;
            }
        }
    }
    let before = text.get(..offset)?;
    let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some((before.matches('\n').count() + 1, before.get(line_begin..)?.chars().count() + 1))
}

#[cfg(test)]
mod tests {
    use crate::Query;

    #[test]
    fn errors_say_where() {
        for (query, expected) in [
            ("sum(", "1:5: parse error: unclosed left parenthesis"),
            ("sum(up\n", "2:1: parse error: unclosed left parenthesis"),
            ("up)", "1:3: parse error: unexpected right parenthesis ')'"),
            ("up{a=\"x\",b=\"y", "1:12: parse error: unterminated quoted string \""),
            ("up +\n  # 5\n  $ 3", "3:3: parse error: unexpected character: '$'"),
            ("up{a=", "1:6: parse error: unexpected end of input inside braces"),
            ("sum by up", "parse error: "),
            ("", "unknown position: parse error: no expression found in input"),
        ] {
            let error = Query::parse(query).err().map(|error| error.to_string()).unwrap_or_default();
            let told = error.strip_prefix("invalid parameter \"query\": ").unwrap_or_default();
            assert!(told.starts_with(expected), "{query:?}: {error}");
        }
    }
}
