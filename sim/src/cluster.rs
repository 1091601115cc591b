//! The embedded cluster: everything wired.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, header};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::Service;

use crate::apiserver::{ApiServer, ServerOptions, definition};
use crate::calls::CallLog;
use crate::clock::Clock;
use crate::controllers::{self, ControllerOptions, PodDetail, Utilisation, Workloads};
use crate::faults::Faults;
use crate::keda;
use crate::prometheus::Prometheus;
use crate::services::{Frontend, Services};
use crate::store::{StatusError, Store, kinds};
use crate::traffic::{Traffic, TrafficOptions};

/// How a cluster starts.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The time that the cluster's clock shows at first.
    pub base_time: Timestamp,
    /// How many times faster than tokio's clock the cluster's runs.
    pub speed: f64,
    /// Decides uids, generated names, watch lifetimes and random faults.
    pub seed: u64,
    /// CustomResourceDefinitions to install; they replace the built-in permissive ones of the same name.
    pub crds: Vec<Value>,
    /// Settings of the API server.
    pub server: ServerOptions,
    /// Settings of the workload controllers; `None` runs none.
    pub controllers: Option<ControllerOptions>,
    /// Settings of the traffic model, the scrape interval among them.
    pub traffic: TrafficOptions,
    /// How many of the last calls the log keeps in order.
    pub logged_calls: usize,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            // Any fixed time will do; a fixed one makes runs comparable.
            base_time: Timestamp::from_second(1_767_225_600).unwrap_or_default(),
            speed: 1.0,
            seed: 1,
            crds: Vec::new(),
            server: ServerOptions::default(),
            controllers: Some(ControllerOptions::default()),
            traffic: TrafficOptions::default(),
            // Enough for the longest scenario of the tests, at some 200 bytes each.
            logged_calls: 100_000,
        }
    }
}

/// An embedded cluster. A cheap handle; the cluster ends with its runtime.
#[derive(Clone)]
pub struct Cluster {
    server: ApiServer,
    store: Store,
    calls: CallLog,
    faults: Faults,
    clock: Clock,
    workloads: Option<Arc<Workloads>>,
    traffic: Traffic,
    prometheus: Prometheus,
    services: Services,
}

impl Cluster {
    /// Starts a cluster on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(options: ClusterOptions) -> Self {
        let clock = Clock::with_speed(options.base_time, options.speed);
        let store = Store::new(clock, options.seed);
        for crd in options.crds {
            install(&store, &clock, crd);
        }
        let calls = CallLog::new(options.logged_calls);
        // Each part draws from a stream of its own, so that a change in one does not shift the others.
        let faults = Faults::new(store.clone(), options.seed ^ 0xFA17);
        let pods = options.controllers.as_ref().map(|options| options.pods);
        let utilisation = options.controllers.as_ref().map(|options| options.utilisation.clone());
        let scaled_by_keda = utilisation.clone().filter(|_| pods == Some(PodDetail::Objects));
        let server =
            ApiServer::new(store.clone(), calls.clone(), faults.clone(), options.server, options.seed ^ 0x3A7C)
                .with_utilisation(utilisation.clone());
        let workloads = options.controllers.map(|options| controllers::start(store.clone(), clock, options));
        let traffic = match (&workloads, pods) {
            (Some(workloads), Some(PodDetail::CountsOnly)) => {
                Traffic::of_counted_pods(&store, clock, &options.traffic, Arc::clone(workloads))
            }
            _ => Traffic::new(&store, clock, &options.traffic),
        };
        if let Some(utilisation) = utilisation.filter(Utilisation::follows_load) {
            traffic.report_load_to(utilisation);
        }
        let prometheus = Prometheus::new(traffic.clone());
        if let Some(utilisation) = scaled_by_keda {
            keda::start(store.clone(), clock, prometheus.clone(), utilisation);
        }
        Self { server, store, calls, faults, clock, workloads, traffic, prometheus, services: Services::default() }
    }

    /// A client in this process, without sockets. Its calls are counted under this user agent; its default namespace is
    /// `default`.
    #[must_use]
    pub fn client(&self, user_agent: &str) -> kube::Client {
        let user_agent =
            HeaderValue::from_str(user_agent).unwrap_or_else(|_| HeaderValue::from_static("invalid-user-agent"));
        let service = InProcess { server: self.server.clone(), user_agent };
        kube::Client::new(service, "default")
    }

    /// The storage, for set-up and for looking without calls.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Counts and log of the calls that came through the API.
    #[must_use]
    pub fn calls(&self) -> &CallLog {
        &self.calls
    }

    /// Faults on demand.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The cluster's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The users' requests and how the versions answer them.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The metrics of the traffic, as Prometheus' query API.
    #[must_use]
    pub fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// Ready pods by version; `None` when no controllers run.
    #[must_use]
    pub fn workloads(&self) -> Option<&Arc<Workloads>> {
        self.workloads.as_ref()
    }

    /// The API server as a service, to put something in front of it.
    #[must_use]
    pub fn api_server(&self) -> ApiServer {
        self.server.clone()
    }

    /// Services that are answered in process; see [`Self::serve`].
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The API server with the services behind its proxy, as clients outside of the process see it.
    #[must_use]
    pub fn frontend(&self) -> Frontend {
        Frontend::new(self.server.clone(), self.store.clone(), self.services.clone())
    }

    /// Serves [`Self::frontend`] over plain HTTP for ever.
    pub async fn serve(&self, listener: TcpListener) -> Infallible {
        crate::http::serve(self.frontend(), listener).await
    }
}

fn install(store: &Store, clock: &Clock, mut crd: Value) {
    let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Err(problems) = definition::resource_type(&crd) {
        tracing::error!(name, ?problems, "refused an invalid resource definition");
        return;
    }
    definition::establish(&mut crd, clock);
    let kind = &kinds::CUSTOM_RESOURCE_DEFINITION;
    let installed: Result<_, StatusError> = if store.get(kind, "", &name).is_some() {
        store.update(kind, "", &name, |present| {
            present["spec"] = crd["spec"].clone();
            present["status"] = crd["status"].clone();
        })
    } else {
        store.create(kind, crd)
    };
    if let Err(error) = installed {
        tracing::error!(name, %error, "failed to install a resource definition");
    }
}

/// The API server as one client sees it.
#[derive(Clone)]
struct InProcess {
    server: ApiServer,
    user_agent: HeaderValue,
}

impl Service<Request<Body>> for InProcess {
    type Response = <ApiServer as Service<Request<Body>>>::Response;
    type Error = <ApiServer as Service<Request<Body>>>::Error;
    type Future = <ApiServer as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.server, context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(header::USER_AGENT, self.user_agent.clone());
        self.server.call(request)
    }
}
