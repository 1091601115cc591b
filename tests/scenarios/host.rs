//! What a scenario asks of the cluster that it runs on, beyond its API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use kube::Client;

/// Headers of requests.
pub type Headers = BTreeMap<String, String>;

/// A cluster with a running operator.
pub trait Host {
    /// A name for messages, and for [`DIFFERENCES`](super::ending::DIFFERENCES).
    fn name(&self) -> &'static str;

    /// The API server, as a person uses it.
    fn client(&self) -> Client;

    /// For how long, by tokio's clock, something may not happen before it is a failure.
    fn patience(&self) -> Duration;

    /// Ends the operator as `kill -9` does, and starts another one at once.
    fn kill_and_start_operator(&self) -> LocalBoxFuture<'_, ()>;

    /// Whether a scenario is told here when all are asked for.
    fn is_chosen(&self, _name: &str) -> bool {
        true
    }

    /// How many scenarios may be under way.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// Lets time of the cluster's clock pass.
    fn pass(&self, time: Duration) -> LocalBoxFuture<'_, ()>;

    /// Sends requests of users with these headers to `HOST.NAMESPACE.example.com`, through the gateway, until the host is
    /// dropped. Where users come by themselves to every host, those without headers need not be sent.
    fn admit_users(&self, namespace: &str, host: &str, headers: &Headers) -> LocalBoxFuture<'_, ()>;

    /// Waits until the requests of users of this namespace that are under way have ended, where that takes real time.
    fn requests_have_ended(&self, _namespace: &str) -> LocalBoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether a request that users sent to `podinfo` failed; `None` where nobody counts them.
    fn has_lost_requests(&self, namespace: &str) -> Option<bool>;

    /// The workloads that answer users of `podinfo` who send these headers.
    fn answers_to(&self, namespace: &str, headers: &Headers) -> LocalBoxFuture<'_, BTreeSet<String>>;
}
