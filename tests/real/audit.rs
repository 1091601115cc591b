//! What the API server was asked, by its own account.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

/// Namespace of the service accounts of the controllers under test.
pub const NAMESPACE: &str = "aviary-system";
/// What their user names begin with; the name of the account follows.
const ACCOUNTS: &str = "system:serviceaccount:aviary-system:";
/// How every line begins.
const LINE: &str = "{\"kind\":\"Event\"";
/// An API server that was started reads the roles within this time; before that it forbids what they grant. Many times what
/// an idle machine takes.
const ROLES_ARE_READ_WITHIN: Duration = Duration::from_secs(30);

/// When API servers were started in the middle of a test.
pub type Starts = Arc<Mutex<Vec<Timestamp>>>;

/// The audit log from a moment on.
pub struct Audit {
    path: PathBuf,
    starts: Starts,
    read: Mutex<Read>,
}

/// How far the log was read, and what of Aviary's was found: the log of a long test has hundreds of megabytes.
struct Read {
    to: u64,
    calls: Vec<Call>,
}

/// One call to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    /// The API server's name for it; a watch has one for its beginning and its end.
    id: String,
    /// Service account.
    pub account: String,
    pub verb: String,
    pub group: String,
    /// Plural, with its subresource: `canaries/status`. The path, for what is no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
    pub uri: String,
    /// When the API server received it.
    pub received: Timestamp,
    /// When it was answered; a watch, when its answer began.
    pub answered: Timestamp,
    is_end_of_watch: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}: {}", self.received, self.account, self.verb, self.resource, self.uri, self.code)
    }
}

impl Call {
    /// `None` for the first of the two entries of all but watches.
    fn read(entry: &Value) -> Option<Call> {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let account = text("/user/username").strip_prefix(ACCOUNTS)?.to_owned();
        let code = entry["responseStatus"]["code"].as_u64().unwrap_or_default();
        let is_watch = text("/verb") == "watch";
        if !is_watch && text("/stage") == "ResponseStarted" {
            return None;
        }
        let resource = match (text("/objectRef/resource"), text("/objectRef/subresource")) {
            (resource, _) if resource.is_empty() => text("/requestURI"),
            (resource, subresource) if subresource.is_empty() => resource,
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        Some(Call {
            id: text("/auditID"),
            account,
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code,
            uri: text("/requestURI"),
            received: text("/requestReceivedTimestamp").parse().unwrap(),
            answered: text("/stageTimestamp").parse().unwrap(),
            // One that is refused has no beginning.
            is_end_of_watch: is_watch && text("/stage") == "ResponseComplete" && code < 400,
        })
    }

    /// List or watch, with which caches are filled.
    pub fn fills_a_cache(&self) -> bool {
        self.verb == "list" || self.verb == "watch"
    }

    /// A write of something that counts: neither the Lease by which the leader is known, nor an event.
    pub fn is_write_of_object(&self) -> bool {
        let is_write = !["get", "list", "watch"].contains(&self.verb.as_str());
        is_write && self.resource != "leases" && self.resource != "events"
    }

    pub fn succeeded(&self) -> bool {
        self.code < 300
    }

    /// Whether another writer had changed the object: by its version, or by the test of a JSON patch.
    pub fn met_another_writer(&self) -> bool {
        self.code == 409 || (self.code == 422 && self.verb == "patch")
    }
}

/// A line of the log. An API server that was killed may have left the beginning of one, which the next one goes on with.
fn parse(line: &str) -> Option<Value> {
    let whole = line.rfind(LINE).map_or(line, |start| &line[start..]);
    serde_json::from_str(whole).ok()
}

impl Audit {
    pub fn from_now_on(path: PathBuf, starts: Starts) -> Audit {
        let to = std::fs::metadata(&path).unwrap().len();
        Audit { path, starts, read: Mutex::new(Read { to, calls: Vec::new() }) }
    }

    /// Reads on from where it stopped.
    fn look<T>(&self, look: impl FnOnce(&[Call]) -> T) -> T {
        let mut read = self.read.lock();
        let mut file = std::fs::File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(read.to)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        // The last line may not be complete yet.
        let length = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&text[..length]);
        let lines = text.lines().filter(|line| line.contains(ACCOUNTS));
        read.calls.extend(lines.filter_map(|line| Call::read(&parse(line)?)));
        read.to += length as u64;
        look(&read.calls)
    }

    /// Calls of Aviary's accounts, in the order of their answers. A watch is one from its beginning.
    pub fn calls(&self) -> Vec<Call> {
        self.look(|calls| calls.iter().filter(|call| !call.is_end_of_watch).cloned().collect())
    }

    /// How many there were.
    pub fn number(&self, is_counted: impl Fn(&Call) -> bool) -> usize {
        self.look(|calls| calls.iter().filter(|call| !call.is_end_of_watch && is_counted(call)).count())
    }

    pub fn any(&self, is_wanted: impl Fn(&Call) -> bool) -> bool {
        self.number(is_wanted) > 0
    }

    /// Watches that have begun and not ended. A killed API server tells of no end.
    pub fn open_watches(&self) -> BTreeSet<String> {
        let last_start = self.starts.lock().last().copied();
        let is_of_this_server = |call: &&Call| last_start.is_none_or(|start| call.received >= start);
        self.look(|calls| {
            let mut open = BTreeSet::new();
            for call in calls.iter().filter(|call| call.verb == "watch").filter(is_of_this_server) {
                if call.is_end_of_watch {
                    open.remove(&call.id);
                } else if call.succeeded() {
                    open.insert(call.id.clone());
                }
            }
            open
        })
    }

    /// How many calls of each verb and resource there were.
    pub fn count(&self, is_counted: impl Fn(&Call) -> bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for call in self.calls().iter().filter(|call| is_counted(call)) {
            *counts.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
        }
        counts
    }

    /// No call was refused for want of a permission. Only an API server that has just been started, and has not read the roles
    /// yet, may refuse what it permits at another time.
    pub fn assert_nothing_was_forbidden(&self) {
        let calls = self.calls();
        let asked = |call: &Call| {
            [&call.account, &call.verb, &call.group, &call.resource, &call.namespace].map(String::as_str).join(" ")
        };
        let is_forbidden = |call: &Call| call.code == 403;
        let permitted: BTreeSet<_> = calls.iter().filter(|call| !is_forbidden(call)).map(asked).collect();
        let starts = self.starts.lock().clone();
        let has_just_started = |at: Timestamp| {
            let since = |start: &Timestamp| Duration::try_from(at.duration_since(*start));
            starts.iter().any(|start| since(start).is_ok_and(|since| since < ROLES_ARE_READ_WITHIN))
        };
        let is_excused = |call: &Call| permitted.contains(&asked(call)) && has_just_started(call.received);
        let wanting = calls.iter().filter(|call| is_forbidden(call) && !is_excused(call));
        let lines: Vec<_> = wanting.map(Call::to_string).collect();
        assert!(lines.is_empty(), "the API server refused what aviary rbac does not grant:\n{}", lines.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    const RECEIVED: &str = "2026-01-01T00:00:10Z";

    fn line((verb, stage, resource, code): (&str, &str, &str, u64)) -> String {
        let entry = json!({
            "auditID": resource, "verb": verb, "stage": stage, "user": {"username": format!("{ACCOUNTS}operator")}, "requestURI": "/x",
            "objectRef": {"resource": resource, "namespace": "test"}, "responseStatus": {"code": code},
            "requestReceivedTimestamp": RECEIVED, "stageTimestamp": RECEIVED,
        });
        format!("{LINE},{}\n", &entry.to_string()[1..])
    }

    struct Log {
        file: tempfile::NamedTempFile,
        audit: Audit,
    }

    impl Log {
        fn new() -> Log {
            let file = tempfile::NamedTempFile::new().unwrap();
            let audit = Audit::from_now_on(file.path().to_owned(), Starts::default());
            Log { file, audit }
        }

        fn of(entries: &[(&str, &str, &str, u64)]) -> Log {
            let mut log = Log::new();
            log.write(&entries.iter().copied().map(line).collect::<String>());
            log
        }

        fn write(&mut self, text: &str) {
            self.file.write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_watch_is_one_call_from_its_beginning() {
        let log = Log::of(&[
            ("watch", "ResponseStarted", "secrets", 200),
            ("list", "ResponseComplete", "secrets", 200),
            ("watch", "ResponseComplete", "secrets", 200),
            ("watch", "ResponseComplete", "services", 403),
        ]);
        let expected = ["list secrets", "watch secrets", "watch services"].map(|call| (call.to_owned(), 1));
        assert_eq!(log.audit.count(|_| true), BTreeMap::from(expected));
    }

    #[test]
    fn a_watch_is_open_until_it_ends_or_its_server_does() {
        let mut log = Log::new();
        let mut open_after = |verb: &str, stage: &str, resource: &str, code: u64| {
            log.write(&line((verb, stage, resource, code)));
            log.audit.open_watches().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(open_after("watch", "ResponseStarted", "secrets", 200), ["secrets"]);
        assert_eq!(open_after("watch", "ResponseStarted", "services", 503), ["secrets"]);
        assert_eq!(open_after("watch", "ResponseStarted", "canaries", 200), ["canaries", "secrets"]);
        assert_eq!(open_after("watch", "ResponseComplete", "secrets", 200), ["canaries"]);
        log.audit.starts.lock().push("2026-01-01T00:00:11Z".parse().unwrap());
        assert!(log.audit.open_watches().is_empty());
    }

    #[test]
    fn lines_are_read_once_and_when_they_are_complete() {
        let mut log = Log::new();
        let (first, second) =
            (line(("get", "ResponseComplete", "a", 200)), line(("get", "ResponseComplete", "b", 200)));
        log.write(&first);
        log.write(&second[..40]);
        assert_eq!(log.audit.number(|_| true), 1);
        log.write(&second[40..]);
        assert_eq!(log.audit.count(|_| true), ["get a", "get b"].map(|call| (call.to_owned(), 1)).into());
    }

    #[test]
    fn what_follows_a_line_that_a_killed_server_began_is_read() {
        let mut log = Log::new();
        let whole = line(("get", "ResponseComplete", "a", 200));
        log.write(&whole[..60]);
        log.write(&whole);
        assert_eq!(log.audit.number(|call| call.resource == "a"), 1);
    }

    fn complaint(log: &Log) -> String {
        let failure =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.audit.assert_nothing_was_forbidden()));
        failure.err().map(|text| text.downcast_ref::<String>().unwrap().clone()).unwrap_or_default()
    }

    #[test]
    fn only_a_server_that_has_just_started_may_refuse_what_it_permits() {
        let (refused, permitted) =
            (("patch", "ResponseComplete", "services", 403), ("patch", "ResponseComplete", "services", 409));
        let log = Log::of(&[refused, permitted]);
        assert!(complaint(&log).contains("operator patch services"), "{}", complaint(&log));
        let start: Timestamp = "2026-01-01T00:00:05Z".parse().unwrap();
        log.audit.starts.lock().push(start);
        log.audit.assert_nothing_was_forbidden();
        // Long before, or only after.
        for start in ["2025-12-31T23:59:00Z", "2026-01-01T00:00:11Z"] {
            *log.audit.starts.lock() = vec![start.parse().unwrap()];
            assert_ne!(complaint(&log), "", "{start}");
        }
        // Never permitted.
        let log = Log::of(&[refused, ("get", "ResponseComplete", "services", 200)]);
        log.audit.starts.lock().push(start);
        assert_ne!(complaint(&log), "");
    }
}
