//! The hooks of all canaries in one place: each says no until its user opens it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aviary::embedded::Service;
use aviary_actors::transport::{HttpResponse, NoAnswer};
use aviary_providers::HttpRequest;
use futures::FutureExt;

use super::story::Gate;
use crate::objects::Name;

/// Which gates are open. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Gates(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Paths of their addresses.
    open: BTreeSet<String>,
    is_down: bool,
}

impl Gates {
    pub(super) fn open(&self, name: &Name, gate: Gate) {
        self.lock().open.insert(path(name, gate));
    }

    /// Closes all gates of a canary.
    pub(super) fn close(&self, name: &Name) {
        for gate in [Gate::Rollout, Gate::TrafficIncrease, Gate::Promotion, Gate::Rollback] {
            self.lock().open.remove(&path(name, gate));
        }
    }

    /// Whether nobody answers.
    pub(super) fn set_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }

    /// What webhooks reach.
    pub(super) fn service(&self) -> Service {
        let gates = self.clone();
        Arc::new(move |request: HttpRequest| std::future::ready(gates.answer(&request)).boxed())
    }

    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, NoAnswer> {
        let state = self.lock();
        if state.is_down {
            return Err(NoAnswer("connection refused".to_owned()));
        }
        let path = request.url.parse::<http::Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
        let status = if state.open.contains(&path) { 200 } else { 403 };
        Ok(HttpResponse { status, retry_after: None, body: Vec::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(name: &Name, gate: Gate) -> String {
    format!("/{}/{}/{}", name.namespace, name.name, gate.kind())
}
