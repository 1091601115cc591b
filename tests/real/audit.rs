//! What the API server was asked, by its own account.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// What the user names of the controllers under test begin with; the name of the account follows.
const ACCOUNTS: &str = "system:serviceaccount:aviary-system:";

/// The audit log from a moment on.
pub struct Audit {
    path: PathBuf,
    from: u64,
}

/// One call to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    /// Service account; empty for all that are not Aviary's.
    pub account: String,
    pub verb: String,
    pub group: String,
    /// Plural, with its subresource: `canaries/status`. The path, for what is no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
    pub uri: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}: {}", self.account, self.verb, self.resource, self.uri, self.code)
    }
}

impl Call {
    /// `None` for the second of the two entries of a watch, which is of its end.
    fn read(entry: &Value) -> Option<Call> {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = entry["responseStatus"]["code"].as_u64().unwrap_or_default();
        let is_end_of_watch = text("/verb") == "watch" && text("/stage") == "ResponseComplete" && code < 400;
        if is_end_of_watch || (text("/verb") != "watch" && text("/stage") == "ResponseStarted") {
            return None;
        }
        let resource = match (text("/objectRef/resource"), text("/objectRef/subresource")) {
            (resource, _) if resource.is_empty() => text("/requestURI"),
            (resource, subresource) if subresource.is_empty() => resource,
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        Some(Call {
            account: text("/user/username").strip_prefix(ACCOUNTS).unwrap_or_default().to_owned(),
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code,
            uri: text("/requestURI"),
        })
    }

    /// List or watch, with which caches are filled.
    pub fn fills_a_cache(&self) -> bool {
        self.verb == "list" || self.verb == "watch"
    }
}

impl Audit {
    pub fn from_now_on(path: PathBuf) -> Audit {
        let from = std::fs::metadata(&path).unwrap().len();
        Audit { path, from }
    }

    /// Calls of Aviary's accounts.
    pub fn calls(&self) -> Vec<Call> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut file = std::fs::File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // The last line may not be complete yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = complete.lines().filter(|line| line.contains(ACCOUNTS));
        lines
            .filter_map(|line| Call::read(&serde_json::from_str(line).unwrap()))
            .filter(|call| !call.account.is_empty())
            .collect()
    }

    /// How many calls of each verb and resource there were.
    pub fn count(&self, is_counted: impl Fn(&Call) -> bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for call in self.calls().iter().filter(|call| is_counted(call)) {
            *counts.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
        }
        counts
    }

    /// No call was refused for want of a permission. An API server that has just started refuses what it permits a moment
    /// later, when it has read the roles; so what was permitted at another time is no want.
    pub fn assert_nothing_was_forbidden(&self) {
        let calls = self.calls();
        let asked = |call: &Call| {
            [&call.account, &call.verb, &call.group, &call.resource, &call.namespace].map(String::as_str).join(" ")
        };
        let is_forbidden = |call: &Call| call.code == 403;
        let permitted: BTreeSet<_> = calls.iter().filter(|call| !is_forbidden(call)).map(asked).collect();
        let wanting = calls.iter().filter(|call| is_forbidden(call) && !permitted.contains(&asked(call)));
        let lines: Vec<_> = wanting.map(Call::to_string).collect();
        assert!(lines.is_empty(), "the API server refused what aviary rbac does not grant:\n{}", lines.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(entries: &[(&str, &str, &str, u64)]) -> (tempfile::NamedTempFile, Audit) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::from_now_on(file.path().to_owned());
        let lines = entries.iter().map(|(verb, stage, resource, code)| {
            let entry = json!({
                "verb": verb, "stage": stage, "user": {"username": format!("{ACCOUNTS}operator")}, "requestURI": "/x",
                "objectRef": {"resource": resource, "namespace": "test"}, "responseStatus": {"code": code},
            });
            format!("{entry}\n")
        });
        std::fs::write(file.path(), lines.collect::<String>() + "{\"not\": \"complete").unwrap();
        (file, audit)
    }

    #[test]
    fn a_watch_is_one_call_from_its_beginning() {
        let (_file, audit) = log(&[
            ("watch", "ResponseStarted", "secrets", 200),
            ("list", "ResponseComplete", "secrets", 200),
            ("watch", "ResponseComplete", "secrets", 200),
            ("watch", "ResponseComplete", "services", 403),
        ]);
        let expected = ["list secrets", "watch secrets", "watch services"].map(|call| (call.to_owned(), 1));
        assert_eq!(audit.count(|_| true), BTreeMap::from(expected));
    }

    #[test]
    fn what_is_refused_for_a_moment_is_no_missing_permission() {
        let refused = ("patch", "ResponseComplete", "services", 403);
        let (_file, audit) = log(&[refused, ("patch", "ResponseComplete", "services", 409)]);
        audit.assert_nothing_was_forbidden();
        let (_file, audit) = log(&[refused, ("get", "ResponseComplete", "services", 200)]);
        let failure = std::panic::catch_unwind(|| audit.assert_nothing_was_forbidden()).unwrap_err();
        let text = failure.downcast_ref::<String>().unwrap();
        assert!(text.contains("operator patch services"), "{text}");
    }
}
