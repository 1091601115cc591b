//! URLs in rules: `url()`, `isURL()` and the parts of a URL (`k8s.io/apiserver/pkg/cel/library/urls.go`).

use std::collections::HashMap;

use ::cel::Value as CelValue;

/// A URL as Go's `url.ParseRequestURI` takes it apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    scheme: String,
    /// With the port.
    host: String,
    path: String,
}

impl Url {
    /// `None` for what is no absolute URI and no absolute path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|character| character.is_ascii_control()) {
            return None;
        }
        let (scheme, rest) = if text.starts_with('/') { ("", text) } else { text.split_once(':')? };
        let is_scheme = scheme.is_empty() && text.starts_with('/')
            || scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
        if !is_scheme {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        if !rest.starts_with('/') {
            // Opaque, like `mailto:a@b`.
            return Some(Self { scheme, ..Self::default() });
        }
        let Some(after) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) else {
            return Some(Self { scheme, path: rest.to_owned(), ..Self::default() });
        };
        let (authority, path) = after.find('/').map_or((after, ""), |start| after.split_at(start));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let port_is_valid = port(host).is_none_or(|port| port.chars().all(|digit| digit.is_ascii_digit()));
        let host_is_valid = !host.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}']);
        (port_is_valid && host_is_valid).then(|| Self { scheme, host: host.to_owned(), path: path.to_owned() })
    }

    /// The URL as a value of its parts, which only the functions of this file look into.
    pub(super) fn into_value(self) -> CelValue {
        let name = port(&self.host).map_or(&*self.host, |port| &self.host[..self.host.len() - port.len() - 1]);
        let hostname = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let parts = [
            ("@getHostname", hostname),
            ("@getPort", port(&self.host).unwrap_or_default().to_owned()),
            ("@getScheme", self.scheme),
            ("@getHost", self.host),
            ("@getEscapedPath", self.path),
        ];
        let parts = parts.into_iter().map(|(name, part)| (name.to_owned(), CelValue::from(part)));
        CelValue::from(parts.collect::<HashMap<_, _>>())
    }
}

/// What follows the last colon outside brackets.
fn port(host: &str) -> Option<&str> {
    let (_, after) = host.rsplit_once(':')?;
    (!after.contains(']')).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn urls_are_taken_apart_as_go_does() {
        let url = |scheme: &str, host: &str, path: &str| {
            Some(Url { scheme: scheme.to_owned(), host: host.to_owned(), path: path.to_owned() })
        };
        for (text, expected) in [
            ("https://user@example.com:80/a/b?q=1", url("https", "example.com:80", "/a/b")),
            ("OCI://registry/x", url("oci", "registry", "/x")),
            ("file:///tmp/x.wasm", url("file", "", "/tmp/x.wasm")),
            ("/only/a/path", url("", "", "/only/a/path")),
            ("mailto:a@b", url("mailto", "", "")),
            ("example.com/x", None),
            ("http://a:port/", None),
            ("http://a b/", None),
            ("1http://a", None),
            ("", None),
        ] {
            assert_eq!(Url::parse(text), expected, "{text}");
        }
    }
}
