//! One of the two servers: sends operations, and tells what came back in a form that can be compared.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::generate::Operation;

/// What a server said: the code, warnings, and the body without what each server chooses for itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

/// No event is later than that, on a machine that is ever so busy: the last one is waited for, so that this only bounds a failure.
const WATCHED: Duration = Duration::from_secs(30);
/// Nor does the garbage collector take longer: it learns of new kinds every half minute.
pub(crate) const COLLECTED: Duration = Duration::from_secs(90);

/// A namespace of a server, and what it calls things in there.
pub(crate) struct Server {
    client: Client,
    namespace: String,
    /// In the order in which they were seen, so that both servers' are called alike.
    versions: Vec<String>,
    uids: Vec<String>,
}

impl Server {
    pub(crate) async fn new(client: Client, namespace: &str) -> Self {
        let server = Self { client, namespace: namespace.to_owned(), versions: Vec::new(), uids: Vec::new() };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let (code, _, body) =
            server.call("POST", "/api/v1/namespaces", "application/json", &namespace.to_string()).await;
        assert_eq!(code, 201, "{body}");
        server
    }

    async fn call(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, Vec<String>, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content_type)
            .header("Accept", "application/json")
            .body(Body::from(body.as_bytes().to_vec()))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("Warning").iter();
        let mut warnings: Vec<String> = warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect();
        if method == "PATCH" {
            // Those about what a patch leaves have the order of Go's structs.
            warnings.sort();
        }
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (code, warnings, body)
    }

    pub(crate) async fn send(&mut self, operation: &Operation) -> Answer {
        let path = operation.path.replace("@namespace", &self.namespace);
        let text = |value: Option<&String>, without: &str| value.map_or(without, String::as_str).to_owned();
        let body = operation
            .body
            .replace("@namespace", &self.namespace)
            .replace("@rv0", &text(self.versions.first(), "1"))
            .replace("@rv", &text(self.versions.last(), "1"))
            .replace("@uid", &text(self.uids.last(), "11111111-2222-4333-8444-555555555555"));
        let (code, warnings, mut body) = self.call(operation.method, &path, operation.content_type, &body).await;
        let is_list = body["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        if is_list {
            body["metadata"]["resourceVersion"] = json!("@list");
        }
        if code == 201 && path.contains("dryRun=All") {
            body["metadata"]["uid"] = json!("@rehearsed");
            // The one that it was given, which is none that the server has.
            if let Some(version) = body["metadata"].get_mut("resourceVersion") {
                *version = json!("@given");
            }
        }
        let is_generated = body["metadata"]["generateName"].is_string() && !operation.body.contains("\"name\":\"");
        if code == 201 && is_generated {
            body["metadata"]["name"] = json!("@generated");
        }
        deduplicate_causes(&mut body);
        self.normalise(&mut body);
        Answer { code, warnings, body }
    }

    /// Reads an object as it is once the garbage collector is done with it. The embedded cluster's is at once.
    pub(crate) async fn read_collected(&mut self, object_path: &str) -> Answer {
        let path = object_path.replace("@namespace", &self.namespace);
        let deadline = Instant::now() + COLLECTED;
        loop {
            let (code, warnings, mut body) = self.call("GET", &path, "application/json", "").await;
            let metadata = &body["metadata"];
            let finalizers = metadata["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
            let is_collectors = |finalizer: &Value| finalizer == "foregroundDeletion" || finalizer == "orphan";
            if metadata["deletionTimestamp"].is_null() || !finalizers.iter().any(is_collectors) {
                self.normalise(&mut body);
                return Answer { code, warnings, body };
            }
            assert!(Instant::now() < deadline, "{path}: the garbage collector does nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn first_version(&self) -> Option<String> {
        self.versions.first().cloned()
    }

    /// What a watch from a version tells, until it tells of the object `end`.
    pub(crate) async fn events_until(&mut self, end: &str, collection: &str, version: &str, selector: &str) -> Value {
        let collection = collection.replace("@namespace", &self.namespace);
        let path = format!("{collection}?watch=1&resourceVersion={version}{selector}");
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = self.client.send(request).await.unwrap();
        let mut body = response.into_body();
        let (mut text, mut events) = (Vec::new(), Vec::new());
        while let Ok(Some(frame)) = tokio::time::timeout(WATCHED, body.frame()).await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
            while let Some(length) = text.iter().position(|byte| *byte == b'\n') {
                let mut event: Value = serde_json::from_slice(&text[..length]).unwrap();
                text.drain(..=length);
                if event.pointer("/object/metadata/name") == Some(&json!(end)) {
                    return json!(events);
                }
                self.normalise(&mut event);
                events.push(event);
            }
        }
        events.push(json!({"type": "the watch tells no more"}));
        json!(events)
    }

    fn normalise(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.normalise(item)),
            Value::Object(fields) => {
                if let Some(Value::Array(entries)) = fields.get_mut("managedFields") {
                    // Ordered by time first, which counts seconds.
                    entries.sort_by_key(|entry| {
                        format!("{} {} {}", entry["operation"], entry["manager"], entry["subresource"])
                    });
                }
                for (name, value) in fields {
                    self.normalise_field(name, value);
                }
            }
            _ => {}
        }
    }

    fn normalise_field(&mut self, name: &str, value: &mut Value) {
        match (name, &value) {
            ("resourceVersion", Value::String(text)) if !text.is_empty() && !text.starts_with('@') => {
                *value = json!(format!("@version{}", position(&mut self.versions, text)));
            }
            ("uid", Value::String(text)) if !text.starts_with('@') => {
                *value = json!(format!("@uid{}", position(&mut self.uids, text)))
            }
            ("nodePort" | "healthCheckNodePort", Value::Number(number)) if number.as_u64() >= Some(30000) => {
                *value = json!("@port");
            }
            ("clusterIP", Value::String(text)) if text.starts_with("10.") => *value = json!("@address"),
            ("clusterIPs", Value::Array(addresses)) if addresses.iter().any(|text| text != "None") => {
                *value = json!(["@address"]);
            }
            ("message", Value::String(text)) => *value = json!(self.name_all(text)),
            (_, Value::String(text)) if is_present_time(text) => *value = json!("@time"),
            _ => self.normalise(value),
        }
    }

    /// Names of this server's own within a message.
    fn name_all(&self, text: &str) -> String {
        let mut text = without_object(text);
        for (index, uid) in self.uids.iter().enumerate() {
            text = text.replace(uid, &format!("@uid{index}"));
        }
        if text.contains("map[") {
            for (index, version) in self.versions.iter().enumerate() {
                let shown = |version: &str| format!("resourceVersion:{version}]");
                text = text.replace(&shown(version), &shown(&format!("@version{index}")));
            }
        }
        if text.contains("precondition") {
            for (index, version) in self.versions.iter().enumerate() {
                text = text.replace(&format!("({version})"), &format!("(@version{index})"));
                text = text.replace(&format!(": {version}"), &format!(": @version{index}"));
            }
        }
        text
    }
}

fn position(known: &mut Vec<String>, text: &str) -> usize {
    known.iter().position(|known| known == text).unwrap_or_else(|| {
        known.push(text.to_owned());
        known.len() - 1
    })
}

/// A refused patch quotes the object, with its fields in the order of Go's structs and with its managed fields. The embedded
/// server's have the order of the alphabet, and none.
fn without_object(text: &str) -> String {
    if let Some((before, _)) = text.split_once("Object 'Kind' is missing in '")
        && text.contains("Invalid value: \"{")
    {
        return format!("{}is missing", &before[..before.find("Invalid value").unwrap_or(0)]);
    }
    let quoted = text.find("patch: Invalid value: \"").or_else(|| text.starts_with("Invalid value: \"{").then_some(0));
    match (quoted, text.rfind("\": ")) {
        (Some(start), Some(end)) if start < end => format!("{}…{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    }
}

/// Some of Go's strategies look at metadata twice or three times, and tell what they find each time.
/// And of a map's fields in any order.
fn deduplicate_causes(body: &mut Value) {
    let Some(causes) = body.pointer_mut("/details/causes").and_then(Value::as_array_mut) else { return };
    causes.sort_by_key(Value::to_string);
    causes.dedup();
    if causes.len() > 1 {
        body["message"] = json!("as the causes say");
    }
}

/// Not one that a generated body says.
fn is_present_time(text: &str) -> bool {
    text.len() >= 20 && text.parse::<jiff::Timestamp>().is_ok() && !text.starts_with("2026-01-01T00:00:00")
}
