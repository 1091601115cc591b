//! Flagger's load tester, as far as it makes sense where no containers run: it keeps gates, takes every order, and of the
//! orders carries out `hey` commands, as requests of simulated users.
//!
//! Paths, payload and statuses are those of the load tester of Flagger 1.44. One thing differs: a gate that nobody has
//! closed is open, so that a Canary with a gate is released unless somebody wants to see it wait.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aviary_sim::services::Backend;
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;

pub(super) use crate::simulate::load_tester::LoadTester as Commands;

/// A load tester, with its gates and whether they are open. Clones share them. The default one carries out nothing.
#[derive(Clone, Default)]
pub struct LoadTester {
    gates: Arc<Mutex<BTreeMap<String, bool>>>,
    commands: Option<Commands>,
}

/// The part of a webhook's payload that matters here.
#[derive(Deserialize)]
struct Payload {
    name: String,
    namespace: String,
    metadata: Option<BTreeMap<String, String>>,
}

impl LoadTester {
    /// One that carries out commands in this way.
    pub(super) fn running(commands: Commands) -> LoadTester {
        LoadTester { gates: Arc::default(), commands: Some(commands) }
    }

    /// Answers as the load tester's service does.
    pub fn backend(&self) -> Backend {
        let tester = self.clone();
        Arc::new(move |request: Request<Bytes>| {
            let (status, text) = tester.answer(request.uri().path(), request.body());
            let mut response = Response::new(Bytes::from(text));
            *response.status_mut() = status;
            std::future::ready(io::Result::Ok(response)).boxed()
        })
    }

    fn answer(&self, path: &str, body: &[u8]) -> (StatusCode, String) {
        match path {
            "/healthz" | "/gate/approve" => return (StatusCode::OK, "OK".to_owned()),
            "/gate/halt" => return (StatusCode::FORBIDDEN, "Forbidden".to_owned()),
            _ => {}
        }
        let payload: Payload = match serde_json::from_slice(body) {
            Ok(payload) => payload,
            Err(error) => return (StatusCode::BAD_REQUEST, format!("decoding the payload: {error}")),
        };
        let canary = format!("{}.{}", payload.name, payload.namespace);
        let rollback = format!("rollback.{canary}");
        match path {
            "/gate/check" => self.check(&canary, true),
            "/gate/open" => self.set(canary, true),
            "/gate/close" => self.set(canary, false),
            "/rollback/check" => self.check(&rollback, false),
            "/rollback/open" => self.set(rollback, true),
            "/rollback/close" => self.set(rollback, false),
            _ => self.order(payload),
        }
    }

    fn check(&self, gate: &str, otherwise: bool) -> (StatusCode, String) {
        if self.gates.lock().get(gate).copied().unwrap_or(otherwise) {
            return (StatusCode::OK, "Approved".to_owned());
        }
        (StatusCode::FORBIDDEN, "Forbidden".to_owned())
    }

    fn set(&self, gate: String, open: bool) -> (StatusCode, String) {
        tracing::info!(gate, open, "gate set");
        self.gates.lock().insert(gate, open);
        (StatusCode::ACCEPTED, String::new())
    }

    /// Tests that run in the background are accepted, those that are waited for have passed.
    fn order(&self, payload: Payload) -> (StatusCode, String) {
        let Some(metadata) = payload.metadata else {
            return (StatusCode::BAD_REQUEST, "metadata not found in payload".to_owned());
        };
        let kind = metadata.get("type").map_or("cmd", String::as_str);
        if kind != "cmd" && kind != "ngrinder" {
            return (StatusCode::OK, String::new());
        }
        if let (Some(commands), Some(command)) = (&self.commands, metadata.get("cmd")) {
            commands.run(command, &payload.namespace, &payload.name);
        }
        (StatusCode::ACCEPTED, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODINFO: &[u8] = br#"{"name": "podinfo", "namespace": "test", "phase": "Progressing"}"#;

    fn status(tester: &LoadTester, path: &str) -> u16 {
        tester.answer(path, PODINFO).0.as_u16()
    }

    #[test]
    fn gates_are_open_until_they_are_closed_and_rollback_closed_until_it_is_opened() {
        let tester = LoadTester::default();
        assert_eq!(status(&tester, "/gate/check"), 200);
        assert_eq!(status(&tester, "/gate/close"), 202);
        assert_eq!(status(&tester, "/gate/check"), 403);
        let other = br#"{"name": "other", "namespace": "test"}"#;
        assert_eq!(tester.answer("/gate/check", other).0, 200, "a gate belongs to one canary");
        assert_eq!(status(&tester, "/gate/open"), 202);
        assert_eq!(status(&tester, "/gate/check"), 200);

        assert_eq!(status(&tester, "/rollback/check"), 403);
        assert_eq!(status(&tester, "/rollback/open"), 202);
        assert_eq!(status(&tester, "/rollback/check"), 200);
        assert_eq!((status(&tester, "/gate/approve"), status(&tester, "/gate/halt")), (200, 403));
    }

    #[test]
    fn orders_are_taken() {
        let tester = LoadTester::default();
        let order = |metadata: &str| {
            let payload = format!(r#"{{"name": "podinfo", "namespace": "test", "metadata": {metadata}}}"#);
            tester.answer("/", payload.as_bytes()).0.as_u16()
        };
        assert_eq!(order(r#"{"cmd": "hey -z 1m http://podinfo-canary.test:9898/"}"#), 202);
        assert_eq!(order(r#"{"type": "bash", "cmd": "exit 1"}"#), 200);
        assert_eq!(order("null"), 400);
        assert_eq!(tester.answer("/", b"no JSON").0, 400);
    }
}
