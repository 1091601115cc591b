//! Watches: one list and one watch per kind and scope, decoded on worker threads, feeding the [`Cache`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use aviary_providers::{ObjectKind, kinds};
use futures::{TryStreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, core::DynamicObject};

use crate::cache::{Cache, KindState, key_of};
use crate::lifetime::Lifetime;
use crate::messages::{CanariesChanged, CanaryId};
use crate::retry::Retry;

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster.
    #[default]
    Cluster,
    /// These namespaces (`--namespace`).
    Namespaces(Vec<String>),
}

/// The kinds that canaries depend on, whatever their provider.
const COMMON: &[&ObjectKind] = &[
    &kinds::CANARY,
    &kinds::METRIC_TEMPLATE,
    &kinds::ALERT_PROVIDER,
    &kinds::DEPLOYMENT,
    &kinds::SERVICE,
    &kinds::CONFIG_MAP,
    &kinds::SECRET,
    &kinds::HORIZONTAL_POD_AUTOSCALER,
];

/// A kind that is not served is looked for again this often: a CRD is installed by a person, who can wait a minute.
const UNSERVED_RETRY: Duration = Duration::from_secs(60);

/// First and longest wait before a watch is opened again after an error, those of client-go.
const WATCH_RETRY: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

/// Starts all watches on the current runtime. `supervisor` hears which canaries came, changed or went,
/// and when a list is complete.
pub(crate) fn start(
    client: &Client,
    cache: &Arc<Cache>,
    scope: &Scope,
    provider_kinds: &[&'static ObjectKind],
    supervisor: &Recipient<CanariesChanged>,
    lifetime: &Lifetime,
) {
    let all: BTreeSet<&'static ObjectKind> = COMMON.iter().chain(provider_kinds).copied().collect();
    for kind in all {
        cache.set_kind(kind, KindState::Syncing);
        let namespaces = match scope {
            Scope::Cluster => vec![None],
            Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        };
        for namespace in namespaces {
            let feed = Feed { cache: cache.clone(), kind, namespace, supervisor: supervisor.clone() };
            lifetime.spawn(feed.run(client.clone()));
        }
    }
}

struct Feed {
    cache: Arc<Cache>,
    kind: &'static ObjectKind,
    namespace: Option<String>,
    supervisor: Recipient<CanariesChanged>,
}

impl Feed {
    async fn run(self, client: Client) {
        let resource = self.kind.api_resource();
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let events =
            watcher(api, watcher::Config::default()).backoff(Retry::new(WATCH_RETRY.0, WATCH_RETRY.1, self.kind));
        pin_mut!(events);
        let mut listed = BTreeSet::new();
        let mut told_unserved = false;
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    told_unserved = false;
                    self.take(event, &mut listed);
                }
                Ok(None) => return,
                Err(error) if is_unserved(&error) => {
                    if !told_unserved {
                        tracing::warn!(
                            kind = self.kind.kind,
                            group = self.kind.group,
                            "kind is not served by the API server"
                        );
                        told_unserved = true;
                    }
                    self.cache.set_kind(self.kind, KindState::Unserved);
                    self.supervisor.do_send(CanariesChanged::Listed);
                    tokio::time::sleep(UNSERVED_RETRY).await;
                }
                // The stream comes back by itself, with backoff.
                Err(error) => tracing::warn!(kind = self.kind.kind, %error, "watch failed, retrying"),
            }
        }
    }

    fn take(&self, event: watcher::Event<DynamicObject>, listed: &mut BTreeSet<aviary_providers::ObjectKey>) {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.extend(key_of(self.kind, &object));
                self.apply(object);
            }
            watcher::Event::InitDone => {
                self.cache.retain_listed(self.kind, self.namespace.as_deref(), listed);
                self.cache.set_kind(self.kind, KindState::Synced);
                listed.clear();
                self.supervisor.do_send(CanariesChanged::Listed);
            }
            watcher::Event::Apply(object) => self.apply(object),
            watcher::Event::Delete(object) => {
                let id = id_of(&object);
                self.cache.remove(self.kind, &object);
                self.tell(id);
            }
        }
    }

    fn apply(&self, object: DynamicObject) {
        let id = id_of(&object);
        self.cache.apply(self.kind, object);
        self.tell(id);
    }

    fn tell(&self, id: CanaryId) {
        if *self.kind == kinds::CANARY {
            self.supervisor.do_send(CanariesChanged::One(id));
        }
    }
}

fn id_of(object: &DynamicObject) -> CanaryId {
    CanaryId {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

fn is_unserved(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
