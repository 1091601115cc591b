//! Texts that somebody else would refuse later (the API server, the HTTP client, a browser), who cannot say which field of
//! the canary they come from.

use super::Problems;
use super::parse::non_empty;
use crate::names::{CANARY_SUFFIX, PRIMARY_SUFFIX};

/// Longest label of DNS (RFC 1035), which is also the longest name of a service and of its ports.
const LONGEST_LABEL: usize = 63;
/// Longest name of a container port (RFC 6335).
const LONGEST_PORT_NAME: usize = 15;

/// Reports a name from which no names of services can be made. An empty one is reported elsewhere.
pub(super) fn check_service_name(path: &str, name: &str, problems: &mut Problems) {
    let room = LONGEST_LABEL - PRIMARY_SUFFIX.len().max(CANARY_SUFFIX.len());
    if name.len() > room {
        problems.add(
            path,
            name,
            format!("is too long to name the services {name}{PRIMARY_SUFFIX} and {name}{CANARY_SUFFIX}"),
            &format!("use at most {room} characters"),
        );
    } else if !name.is_empty() && !is_label(name) {
        problems.add(
            path,
            name,
            "cannot be the name of a service",
            "use lower-case letters, digits and -, with a letter or digit at both ends",
        );
    }
}

/// Reports a name that no port of a service can have.
pub(super) fn check_port_name(path: &str, name: &str, problems: &mut Problems) {
    if name.len() > LONGEST_LABEL || !is_label(name) {
        problems.add(
            path,
            name,
            "cannot be the name of a service's port",
            "use at most 63 lower-case letters, digits and -, with a letter or digit at both ends",
        );
    }
}

/// Reports a name that no port of a container can have.
pub(super) fn check_container_port_name(path: &str, name: &str, problems: &mut Problems) {
    let fits = name.len() <= LONGEST_PORT_NAME && is_label(name) && !name.contains("--");
    if !fits || !name.contains(|letter: char| letter.is_ascii_lowercase()) {
        problems.add(
            path,
            name,
            "is neither a port's number nor can it be the name of a container's port",
            "use a port from 1 to 65535, or at most 15 lower-case letters, digits and single -, with at least one letter",
        );
    }
}

fn is_label(name: &str) -> bool {
    let inside = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    name.chars().all(inside) && !name.starts_with('-') && !name.ends_with('-')
}

/// Reports what cannot be called over HTTP. `example` shows the form.
pub(super) fn check_address(path: &str, address: &str, example: &str, problems: &mut Problems) {
    if !is_address(address) {
        problems.add(path, address, "is not an address that can be called", &format!("use a URL such as {example}"));
    }
}

fn is_address(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    // The colons of an IPv6 address stand within brackets.
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (server, ""),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let forbidden = |letter: char| letter.is_whitespace() || letter.is_control() || "<>\\^`{|}%\"".contains(letter);
    !host.is_empty()
        && !host.contains(forbidden)
        && (is_bracketed || !host.contains(':'))
        && (port.is_empty() || port.parse::<u16>().is_ok())
}

/// Reports what cannot be the name of a cookie (a token of RFC 9110).
pub(super) fn check_cookie_name(path: &str, name: &str, problems: &mut Problems) {
    let is_token = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    if !name.is_empty() && !name.chars().all(is_token) {
        problems.add(
            path,
            name,
            "cannot be the name of a cookie, so that no client would come back with it",
            "use letters, digits, - and _",
        );
    }
}

/// An attribute of a cookie, as written. Reports what would end it, and so change the attributes behind it.
pub(super) fn parse_cookie_attribute(path: &str, text: Option<&str>, problems: &mut Problems) -> Option<String> {
    let text = non_empty(text)?;
    if text.contains(|letter: char| letter == ';' || letter.is_control() || !letter.is_ascii()) {
        problems.add(path, text.as_str(), "cannot stand in a cookie", "leave out ; and everything that is not ASCII");
    }
    Some(text)
}
