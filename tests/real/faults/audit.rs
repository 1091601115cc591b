//! What the API server says was called.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use jiff::Timestamp;
use serde_json::Value;

use super::Inside;

/// A call that was answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub time: Timestamp,
    pub user: String,
    pub verb: String,
    /// With its subresource, as in `deployments/scale`.
    pub resource: String,
    pub namespace: String,
    pub code: u64,
}

impl Call {
    fn of(entry: &Value) -> Call {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subresource = text("/objectRef/subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        Call {
            time: text("/stageTimestamp").parse().unwrap(),
            user: text("/user/username"),
            verb: text("/verb"),
            resource: format!("{}{slash}{subresource}", text("/objectRef/resource")),
            code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
            namespace: text("/objectRef/namespace"),
        }
    }

    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// The calls of controllers so far, in the order of their ends.
pub fn calls(bench: &Inside) -> Vec<Call> {
    let log = std::fs::File::open(bench.path("audit.log")).unwrap();
    let lines = BufReader::new(log).lines().map_while(Result::ok);
    // One that is being written, or that a killed server has begun.
    let entries = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let ended = entries.filter(|entry| entry["stage"] == "ResponseComplete");
    let of_controllers = |call: &Call| call.user.starts_with(super::operator::USERS);
    let mut calls: Vec<Call> = ended.map(|entry| Call::of(&entry)).filter(of_controllers).collect();
    calls.sort_by_key(|call| call.time);
    calls
}

/// Controllers have the rights that `aviary rbac` prints, and no others. An API server that was started anew forbids for a
/// moment what it grants before and after.
pub fn assert_nothing_was_forbidden(bench: &Inside) {
    let calls = calls(bench);
    assert!(calls.len() > 100, "{} calls are none", calls.len());
    let asked = |call: &Call| (call.verb.clone(), call.resource.clone());
    let granted: BTreeSet<_> = calls.iter().filter(|call| call.code < 300).map(asked).collect();
    let forbidden: BTreeSet<_> = calls.iter().filter(|call| call.code == 403).map(asked).collect();
    let never_granted: Vec<_> = forbidden.difference(&granted).collect();
    assert!(never_granted.is_empty(), "{never_granted:?}");
}
