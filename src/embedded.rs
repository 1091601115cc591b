//! The embedded cluster as the controller sees it: an API server, and service names that are answered in process.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_actors::transport::{HttpResponse, NoAnswer, Transport};
use aviary_actors::{Clock, Controller, ControllerConfig, Metrics};
use aviary_providers::HttpRequest;
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::ControllerOptions;
use aviary_sim::prometheus::Prometheus;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::api::{DynamicObject, PostParams};

/// Requests per second for which a pod uses all the CPU it asks for. With it one pod that has all of a simulation's users (100
/// requests per second) is half busy, below what autoscalers aim at, and ten times the users are too much for two pods.
pub const REQUESTS_PER_POD: f64 = 200.0;

/// Options of the controllers: autoscalers follow load, so that a pod is busy with this many requests per second; with 0 they only
/// keep their bounds.
pub fn controller_options(requests_per_pod: f64) -> ControllerOptions {
    let options = ControllerOptions::default();
    options.utilisation.set_requests_per_pod(requests_per_pod);
    options
}

/// Options of an embedded cluster on which Aviary's resource types are installed.
pub fn cluster_options(seed: u64) -> ClusterOptions {
    ClusterOptions { seed, crds: aviary_crds::schema::all_crds(), ..ClusterOptions::default() }
}

/// A controller on an embedded cluster: the wiring of `aviary run`, with the cluster's clock and its service names.
///
/// # Errors
/// Metrics cannot be registered.
pub fn start_controller(
    config: ControllerConfig,
    cluster: &Cluster,
    user_agent: &str,
    services: &ServiceNames,
) -> prometheus::Result<Controller> {
    let clock = *cluster.clock();
    Ok(Controller::start(
        config,
        &cluster.client(user_agent),
        Arc::new(services.clone()),
        Clock::from_fn(move || clock.now()).at_speed(clock.speed()),
        Metrics::new()?,
    ))
}

/// Creates an object as `kubectl create` does: with strict decoding, so that a misspelt field is an error.
///
/// # Errors
/// What the API server refuses.
pub async fn create_strictly(
    client: &kube::Client,
    api: &kube::Api<DynamicObject>,
    object: &DynamicObject,
) -> kube::Result<()> {
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request = kube::core::Request::new(api.resource_url()).create(&PostParams::default(), body);
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    let strict = format!("{}?fieldValidation=Strict", request.uri().path());
    *request.uri_mut() = strict.parse().map_err(|error| kube::Error::HttpError(http::Error::from(error)))?;
    client.request::<DynamicObject>(request).await.map(drop)
}

/// Answers requests.
pub type Service = Arc<dyn Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> + Send + Sync>;

/// Service names of the embedded cluster (`prometheus:9090`, `flagger-loadtester.test`), answered in process, so that
/// unmodified manifests work, also in virtual time.
#[derive(Clone, Default)]
pub struct ServiceNames(BTreeMap<String, Service>);

impl ServiceNames {
    /// Names under which Prometheus is known in the manifests of Flagger's documentation.
    pub fn with_prometheus(prometheus: &Prometheus) -> ServiceNames {
        let service = prometheus_service(prometheus);
        let names = ["prometheus", "prometheus.istio-system", "flagger-prometheus.flagger-system"];
        ServiceNames(names.iter().map(|name| ((*name).to_owned(), service.clone())).collect())
    }

    /// Adds a service, or replaces it. The name is the first part of the host, or the first two (`name.namespace`).
    #[must_use]
    pub fn and(mut self, name: &str, service: Service) -> ServiceNames {
        self.0.insert(name.to_owned(), service);
        self
    }

    fn find(&self, host: &str) -> Option<&Service> {
        let host = host.trim_end_matches(".svc.cluster.local").trim_end_matches(".svc");
        self.0.get(host)
    }
}

impl Transport for ServiceNames {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        let host = request.url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        let host = host.unwrap_or_default();
        match self.find(&host) {
            Some(service) => service(request),
            None => {
                let error = NoAnswer(format!("lookup {host}: no such host"));
                std::future::ready(Err(error)).boxed()
            }
        }
    }
}

fn prometheus_service(prometheus: &Prometheus) -> Service {
    let prometheus = prometheus.clone();
    Arc::new(move |request: HttpRequest| {
        let prometheus = prometheus.clone();
        async move {
            let uri: http::Uri = request.url.parse().map_err(|_| NoAnswer("bad address".to_owned()))?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let answer = prometheus.handle(&request.method, path, &request.body).await;
            let (status, body) = answer.map_err(|error| NoAnswer(error.to_string()))?;
            Ok(HttpResponse { status: status.as_u16(), retry_after: None, body: body.into_bytes() })
        }
        .boxed()
    })
}
