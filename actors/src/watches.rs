//! Watches: one list and one watch per kind and scope, decoded on worker threads, feeding the [`Cache`].

mod feed;

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::Recipient;
use aviary_providers::{ObjectKind, kinds};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client, core::DynamicObject};

use crate::cache::{Cache, KindState};
use crate::dialects;
use crate::lifetime::Lifetime;
use crate::messages::CanariesChanged;
use feed::Feed;

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
    &kinds::METRIC_TEMPLATE,
    &kinds::ALERT_PROVIDER,
    &kinds::DEPLOYMENT,
    &kinds::DAEMON_SET,
    &kinds::SERVICE,
    &kinds::CONFIG_MAP,
    &kinds::SECRET,
    &kinds::HORIZONTAL_POD_AUTOSCALER,
    &kinds::SCALED_OBJECT,
];

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
    let all: BTreeSet<&'static ObjectKind> =
        COMMON.iter().chain(provider_kinds).copied().chain(dialects::watched()).collect();
    for kind in all {
        let namespaces = match scope {
            Scope::Cluster => vec![None],
            Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        };
        for namespace in namespaces {
            cache.set_kind(kind, namespace.as_deref(), KindState::Syncing);
            let resource = kind.api_resource();
            let api: Api<DynamicObject> = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let feed = Feed { cache: cache.clone(), kind, namespace, supervisor: supervisor.clone() };
            lifetime.spawn(feed.run(move || watcher(api.clone(), watcher::Config::default())));
        }
    }
}

/// Objects in one answer: as many as the watches ask for, and client-go.
const PAGE: u32 = 500;

/// Lists all objects that are run into the cache, as they are now: the API server asks its storage.
pub(crate) async fn list_canaries(client: &Client, cache: &Cache, scope: &Scope) -> kube::Result<()> {
    for kind in dialects::watched() {
        match list(client, cache, scope, kind).await {
            // Few clusters have the kinds of other systems.
            Err(kube::Error::Api(status)) if dialects::is_optional(kind) && matches!(status.code, 403 | 404) => {}
            listed => listed?,
        }
    }
    Ok(())
}

async fn list(client: &Client, cache: &Cache, scope: &Scope, kind: &'static ObjectKind) -> kube::Result<()> {
    let namespaces = match scope {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    for namespace in namespaces {
        let resource = kind.api_resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let mut listing = cache.begin_list(kind, namespace);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            for object in page.items {
                listing.note(kind, &object);
                cache.apply(kind, object);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        cache.finish_list(listing);
    }
    Ok(())
}

/// What to tell a person about a kind that the API server does not let us see.
pub(crate) fn forbidden(kind: &ObjectKind) -> String {
    let resource = kind.resource();
    format!("the API server forbids listing {}: grant get, list and watch on {resource}", kind.kind)
}
