//! Names that Kubernetes and container runtimes accept.

/// An object's longest name, by RFC 1123.
const LONGEST_NAME: usize = 253;
/// A tag's length, by the specification of OCI registries.
const LONGEST_TAG: usize = 128;

/// # Errors
/// If no object can have this name.
pub(super) fn name(text: &str) -> Result<(), String> {
    let is_edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_inside = |letter: char| is_edge(letter) || letter == '-' || letter == '.';
    let is_valid = (1..=LONGEST_NAME).contains(&text.len())
        && text.starts_with(is_edge)
        && text.ends_with(is_edge)
        && text.chars().all(is_inside);
    if is_valid {
        return Ok(());
    }
    Err(format!("no object can be named {text:?}: expected small letters, digits, '-' and '.'"))
}

/// # Errors
/// If no image can have this tag.
pub(super) fn tag(text: &str) -> Result<(), String> {
    if is_tag(text) {
        return Ok(());
    }
    Err(format!("no image can have the tag {text:?}: expected letters, digits, '.', '_' and '-', such as 6.0.1"))
}

fn is_tag(text: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (1..=LONGEST_TAG).contains(&text.len())
        && text.starts_with(is_word)
        && text.chars().all(|letter| is_word(letter) || letter == '.' || letter == '-')
}

/// # Errors
/// If it names no image.
pub(super) fn image(text: &str) -> Result<(), String> {
    let refused =
        |why: &str| Err(format!("{text:?} names no image: {why}; for example ghcr.io/stefanprodan/podinfo:6.0.1"));
    if text.is_empty() {
        return refused("it is empty");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return refused("what follows '@' is no digest");
    }
    let (path, tag) = match rest.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return refused("what follows the last ':' is no tag");
    }
    let (registry, names) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, path),
    };
    let is_host = |letter: char| letter.is_ascii_alphanumeric() || ".:-[]".contains(letter);
    if registry.is_some_and(|registry| !registry.chars().all(is_host)) {
        return refused("the registry is no host");
    }
    if !names.split('/').all(is_component) {
        return refused("a name has small letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

fn is_component(text: &str) -> bool {
    let is_edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.starts_with(is_edge)
        && text.ends_with(is_edge)
        && text.chars().all(|letter| is_edge(letter) || "._-".contains(letter))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    // The shortest that registries accept.
    !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|letter| letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_what_a_runtime_could_pull() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for good in
            ["nginx", "nginx:1.25", "ghcr.io/a/b:6.0.1", "localhost:5000/a/b", "localhost/a", "a/b_c:v1-x", &digest]
        {
            assert_eq!(image(good), Ok(()), "{good}");
        }
        for bad in
            ["", "x y z", "nginx:", "nginx:a b", "Nginx:1", "a//b", "/a", "a/", "a@sha256:12", "ghcr.io/:1", "a:b:c"]
        {
            assert!(image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_tags_are_checked() {
        assert!(name("podinfo").is_ok() && name("a.b-c.1").is_ok());
        assert!(name("").is_err() && name("Pod").is_err() && name("a b").is_err() && name("-a").is_err());
        assert!(tag("6.0.1").is_ok() && tag("v1_2-x").is_ok());
        assert!(tag("").is_err() && tag("a b").is_err() && tag("-a").is_err() && tag("a:b").is_err());
    }
}
