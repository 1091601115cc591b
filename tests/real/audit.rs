//! What the API server was asked, by its own account.

use std::collections::BTreeMap;
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

    pub fn assert_nothing_was_forbidden(&self) {
        let forbidden: Vec<_> = self.calls().into_iter().filter(|call| call.code == 403).collect();
        let lines: Vec<_> = forbidden.iter().map(Call::to_string).collect();
        assert!(lines.is_empty(), "the API server refused what aviary rbac does not grant:\n{}", lines.join("\n"));
    }
}
