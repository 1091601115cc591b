//! What the parser finds wrong, in words that help whoever wrote the file.

/// One line about an error. `context_line` is where the thing that is wrong began, and `line` the text of the line with the
/// error. `is_at_end`: there is nothing more after it.
pub(super) fn explain(
    problem: &str,
    context: Option<&str>,
    context_line: Option<u64>,
    line: &str,
    is_at_end: bool,
) -> String {
    let began = context_line.map(|line| format!(" on line {line}")).unwrap_or_default();
    let context = context.unwrap_or_default();
    let text = match problem {
        "mapping values are not allowed in this context" => {
            "a second colon on this line: put a text with \": \" in quotes, or check the indentation".to_owned()
        }
        "block sequence entries are not allowed in this context" => {
            "a list item cannot begin here: begin the list on a line of its own".to_owned()
        }
        "block mapping entries are not allowed in this context" | "mapping keys are not allowed in this context" => {
            "a key cannot begin here".to_owned()
        }
        "found character that cannot start any token" => match line.trim_start_matches(' ').chars().next() {
            Some('\t') => "a tab is used for indentation: use spaces".to_owned(),
            _ => "a text cannot begin with this character: put it in quotes".to_owned(),
        },
        "found a tab character that violates indentation"
        | "found a tab character where an indentation space is expected" => {
            "a tab is used for indentation: use spaces".to_owned()
        }
        "did not find expected key" => {
            format!("expected a key: check the indentation, and the quotes, of the object that begins{began}")
        }
        "did not find expected '-' indicator" => {
            format!("expected '- ': check the indentation of the list that begins{began}")
        }
        "did not find expected ',' or ']'" => {
            format!("expected ',' or ']': the brackets that open{began} are not closed")
        }
        "did not find expected ',' or '}'" => {
            format!("expected ',' or '}}': the braces that open{began} are not closed")
        }
        "could not find expected ':'" => "expected ':' after the key".to_owned(),
        "found unexpected end of stream" | "found unexpected document indicator" if context.contains("quoted") => {
            format!("the quote that opens{began} is not closed")
        }
        "found unknown escape character" => {
            "unknown escape in double quotes: write \\\\ for a backslash, or use single quotes".to_owned()
        }
        "did not find expected <document start>" => {
            "expected the end of the document, or '---': check the indentation".to_owned()
        }
        "did not find expected node content" if is_at_end => {
            "the document ends before this is complete: a bracket or brace is not closed".to_owned()
        }
        "did not find expected node content" => "expected a value".to_owned(),
        "found undefined tag handle" | "did not find expected whitespace or line break" if line.contains('%') => {
            "a text cannot begin with '%': put it in quotes".to_owned()
        }
        "control characters are not allowed" => "a control character: is this a text file?".to_owned(),
        "found undefined tag handle" => "unknown tag: put a text that begins with '!' in quotes".to_owned(),
        other => other.to_owned(),
    };
    with_hint(text, line)
}

/// Adds what is probably the matter with a line.
pub(super) fn with_hint(text: String, line: &str) -> String {
    if line.contains("{{") {
        return format!("{text}; this looks like a template: render it first (helm template … | aviary simulate -f -)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    /// Mistakes that are made, and nothing of the parser's own in what is said of them.
    #[test]
    fn usual_mistakes_are_told_in_plain_words() {
        for (text, expected) in [
            ("a: b: c\n", "1:5: a second colon on this line"),
            ("a:\n\tb: 1\n", "2:1: a tab is used for indentation"),
            ("a: @b\n", "1:4: a text cannot begin with this character"),
            ("a: \"x\" y\n", "1:8: expected a key: check the indentation"),
            ("a: 1\n b: 2\n", "2:3: a second colon on this line"),
            (
                "a:\n  - b\n c: d\n",
                "3:2: expected a key: check the indentation, and the quotes, of the object that begins on line 1",
            ),
            ("a: [1, 2\nb: 3\n", "2:2: expected ',' or ']': the brackets that open on line 1 are not closed"),
            ("a: {b: 1\n", "1:4: expected ',' or '}': the braces that open on line 1 are not closed"),
            ("a: 'b\nc: d\n", "1:4: the quote that opens on line 1 is not closed"),
            ("a: \"\\d\"\n", "1:5: unknown escape in double quotes"),
            ("a: !b!c d\n", "1:4: unknown tag"),
            ("a: %b\n", "1:4: a text cannot begin with this character"),
            ("a\nb: 1\n", "2:2: a second colon on this line"),
            ("a: 1\nb\n", "2:1: expected ':' after the key"),
            ("- a\nb: 1\n", "2:1: expected '- '"),
            ("a: - b\n", "1:4: a list item cannot begin here"),
            ("a: {{ .Values.a }}\n", "this looks like a template: render it first"),
            ("? [a]\n: b\n", "1:3: a key is a text, not a list or an object"),
        ] {
            let errors = parse(text).errors;
            let told = errors.first().map(|error| format!("{}: {}", error.place, error.message)).unwrap_or_default();
            assert!(told.contains(expected), "{text:?}: {told}");
        }
    }
}
