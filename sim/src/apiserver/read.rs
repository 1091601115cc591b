//! Get, list and watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::ApiServer;
use super::request::{Query, Target};
use super::response::{Answer, AnswerBody, Encoder};
use super::selectors::Selectors;
use super::watch::{WatchStream, WatchTiming};
use crate::store::{FieldError, FieldReason, Record, StatusError, WatchStart};

impl ApiServer {
    pub(super) fn get(&self, target: &Target, name: &str, encoder: &Encoder) -> Result<Answer, StatusError> {
        let record = self
            .store
            .record(&target.resource.group_kind, &target.namespace, name)
            .ok_or_else(|| StatusError::not_found(&target.resource, name))?;
        if target.subresource == "scale" {
            return super::scale::answer(target, &record, encoder, 200);
        }
        Ok(Answer::json(200, encoder.object(&record)))
    }

    pub(super) fn list(&self, target: &Target, query: &Query, encoder: &Encoder) -> Result<Answer, StatusError> {
        check_list_options(query)?;
        let selectors = selectors(target, query)?;
        let limit = query.number("limit")?.unwrap_or(0);
        let page = match query.get("continue") {
            Some(token) => Some(PageToken::decode(token)?),
            None => None,
        };
        let at = match &page {
            Some(_) if query.resource_version()?.is_some_and(|version| version > 0) => {
                return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
            }
            Some(page) => page.version,
            None => self.requested_version(query, limit)?,
        };
        let kind = &target.resource.group_kind;
        let (records, version) = match (selectors.single_name(), at) {
            (Some(name), None) if target.scope().is_some() => {
                let record = self.store.record(kind, &target.namespace, name);
                (record.into_iter().collect(), self.store.revision())
            }
            _ => self.store.records(kind, target.scope(), at).ok_or_else(|| compacted(page.as_ref()))?,
        };
        let after = page.as_ref().map(|page| page.after.as_str());
        let mut selected: Vec<Arc<Record>> = records
            .into_iter()
            .filter(|record| after.is_none_or(|after| position(record).as_str() > after))
            .filter(|record| selectors.is_empty() || selectors.selects(record))
            .collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if limit > 0 && selected.len() > limit {
            let rest = selected.len() - limit;
            selected.truncate(limit);
            if let Some(last) = selected.last() {
                let next = PageToken { version: Some(version), after: position(last) };
                metadata["continue"] = Value::String(next.encode());
            }
            if selectors.is_empty() {
                metadata["remainingItemCount"] = json!(rest);
            }
        }
        say_that_nothing_follows(target, encoder, &mut metadata);
        Ok(Answer::json(200, list_body(target, encoder, &metadata, &selected)))
    }

    /// The version that a list must be read at; `None` for the present one.
    fn requested_version(&self, query: &Query, limit: u64) -> Result<Option<u64>, StatusError> {
        let Some(version) = query.resource_version()? else {
            return Ok(None);
        };
        let current = self.store.revision();
        if version > current {
            return Err(too_large(version, current));
        }
        let is_exact = match query.get("resourceVersionMatch") {
            Some(matching) => matching == "Exact",
            // A page of a version means that version (the "legacy exact" of etcd's store).
            None => limit > 0 && version > 0,
        };
        Ok(is_exact.then_some(version))
    }

    pub(super) fn watch(&self, target: &Target, query: &Query, encoder: Encoder) -> Result<Answer, StatusError> {
        let mut selectors = selectors(target, query)?;
        if let Some(name) = &target.name {
            let by_name = format!("metadata.name={name}");
            selectors = Selectors::parse(target, query.get("labelSelector"), Some(&by_name))?;
        }
        let version = query.resource_version()?.unwrap_or(0);
        let send_initial = query.get("sendInitialEvents").map(|text| text == "true");
        check_watch_options(query, send_initial)?;
        let start = match send_initial {
            Some(true) => WatchStart::Initial,
            Some(false) if version == 0 => WatchStart::After(self.store.revision()),
            None if version == 0 => WatchStart::Initial,
            Some(false) | None => WatchStart::After(version),
        };
        let allows_bookmarks = query.flag("allowWatchBookmarks");
        let timing = WatchTiming {
            lifetime: self.watch_lifetime(query.number("timeoutSeconds")?),
            bookmarks: allows_bookmarks.then_some(self.options.bookmark_interval),
            mark_initial_end: allows_bookmarks && send_initial == Some(true),
        };
        let kind = &target.resource.group_kind;
        let stream = match self.store.watch(kind, target.scope(), start) {
            Some(feed) => WatchStream::new(self.store.clone(), encoder, selectors, feed, timing),
            None => {
                let current = self.store.revision();
                let error = StatusError::expired(format!("too old resource version: {version} ({current})"));
                WatchStream::refused(self.store.clone(), encoder, &error)
            }
        };
        let mut answer = Answer::json(200, Bytes::new());
        answer.body = AnswerBody::Watch(Box::new(stream));
        Ok(answer)
    }

    /// Real servers end every watch after a random time, so that clients spread over the servers.
    fn watch_lifetime(&self, timeout_seconds: Option<u64>) -> Duration {
        let (shortest, longest) = self.options.watch_lifetime;
        let share = self.random.lock().unit();
        let spread = longest.saturating_sub(shortest).mul_f64(share);
        let lifetime = shortest.saturating_add(spread);
        match timeout_seconds {
            Some(seconds) if seconds > 0 => lifetime.min(Duration::from_secs(seconds)),
            _ => lifetime,
        }
    }
}

pub(super) fn selectors(target: &Target, query: &Query) -> Result<Selectors, StatusError> {
    Selectors::parse(target, query.get("labelSelector"), query.get("fieldSelector"))
}

/// `ValidateListOptions` of `apimachinery/pkg/apis/meta/internalversion/validation`.
fn check_list_options(query: &Query) -> Result<(), StatusError> {
    let mut problems = Vec::new();
    let forbidden = |detail: &str| FieldError::forbidden("resourceVersionMatch", detail);
    if let Some(matching) = query.get("resourceVersionMatch") {
        if query.get("resourceVersion").is_none() {
            problems.push(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if query.get("continue").is_some() {
            problems.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            problems.push(unsupported_match(matching, "\"Exact\", \"NotOlderThan\", \"\""));
        }
        if matching == "Exact" && query.get("resourceVersion") == Some("0") {
            problems.push(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if query.get("sendInitialEvents").is_some() {
        problems.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    refuse_options(&problems)
}

/// `validateWatchOptions` of the same package.
fn check_watch_options(query: &Query, send_initial: Option<bool>) -> Result<(), StatusError> {
    let mut problems = Vec::new();
    let forbidden = |detail: &str| FieldError::forbidden("resourceVersionMatch", detail);
    let matching = query.get("resourceVersionMatch");
    if send_initial.is_some() && matching != Some("NotOlderThan") {
        problems.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if let Some(matching) = matching {
        if send_initial.is_none() {
            problems
                .push(forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if matching != "NotOlderThan" {
            problems.push(unsupported_match(matching, "\"NotOlderThan\""));
        }
        if query.get("continue").is_some() {
            problems.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    refuse_options(&problems)
}

fn unsupported_match(matching: &str, supported: &str) -> FieldError {
    FieldError {
        reason: FieldReason::NotSupported,
        field: "resourceVersionMatch".to_owned(),
        value: Value::from(matching).to_string(),
        detail: format!("supported values: {supported}"),
    }
}

fn refuse_options(problems: &[FieldError]) -> Result<(), StatusError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid("meta.k8s.io", "ListOptions", "", problems))
}

fn too_large(version: u64, current: u64) -> StatusError {
    StatusError::new(504, "Timeout", format!("Too large resource version: {version}, current: {current}"))
        .with_causes(vec![kube::core::response::StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }])
        .with_retry_after(1)
}

fn compacted(page: Option<&PageToken>) -> StatusError {
    let Some(page) = page else {
        return StatusError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let inconsistent = PageToken { version: None, after: page.after.clone() };
    error.status.metadata = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta {
        continue_: Some(inconsistent.encode()),
        ..Default::default()
    });
    error
}

/// Where a paged list goes on: at which version, after which object.
struct PageToken {
    /// `None` goes on with the present version (etcd's -1).
    version: Option<u64>,
    after: String,
}

impl PageToken {
    fn encode(&self) -> String {
        let version = self.version.map_or(json!(-1), |version| json!(version));
        let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": self.after});
        serde_json::to_value(ByteString(token.to_string().into_bytes()))
            .ok()
            .and_then(|encoded| encoded.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    fn decode(token: &str) -> Result<Self, StatusError> {
        let invalid = |detail: String| StatusError::bad_request(format!("continue key is not valid: {detail}"));
        let bytes: ByteString =
            serde_json::from_value(Value::String(token.to_owned())).map_err(|error| invalid(error.to_string()))?;
        let token: Value = serde_json::from_slice(&bytes.0).map_err(|error| invalid(error.to_string()))?;
        let after = token["start"].as_str().ok_or_else(|| invalid("no start".to_owned()))?;
        Ok(Self { version: token["rv"].as_u64(), after: after.to_owned() })
    }
}

/// The order of a list. A NUL sorts before every character of a name, so that namespaces do not interleave.
fn position(record: &Record) -> String {
    format!("{}\0{}", record.namespace(), record.name())
}

fn list_body(target: &Target, encoder: &Encoder, metadata: &Value, records: &[Arc<Record>]) -> Bytes {
    if let Some(table) = &encoder.table {
        return table.list(metadata, records.iter().map(|record| &**record), |record| encoder.served(record));
    }
    let (api_version, kind) = encoder.list_kind(&target.resource.list_kind);
    let mut body = Vec::with_capacity(256 + records.iter().map(|record| record.size() + 1).sum::<usize>());
    body.extend_from_slice(
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
            .as_bytes(),
    );
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        encoder.write_item(record, &mut body);
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}

/// The body of a list that is not read from the store, e.g. what a collection delete removed.
/// Lists of custom resources have an empty token where the others have none (`UnstructuredList.SetContinue`).
fn say_that_nothing_follows(target: &Target, encoder: &Encoder, metadata: &mut Value) {
    let is_own_kind = !encoder.metadata_only && encoder.table.is_none();
    if target.resource.custom && is_own_kind && metadata.get("continue").is_none() {
        metadata["continue"] = json!("");
    }
}

pub(super) fn answer_list(target: &Target, encoder: &Encoder, records: &[Arc<Record>]) -> Answer {
    let mut metadata = json!({"resourceVersion": ""});
    say_that_nothing_follows(target, encoder, &mut metadata);
    Answer::json(200, list_body(target, encoder, &metadata, records))
}
