//! The connection to the cluster.

mod explain;
pub mod mesh;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use aviary_actors::Metrics;
use aviary_providers::{ObjectKind, kinds};
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::ListParams;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::DynamicObject;
use kube::{Api, Client, Config};
use tower::ServiceBuilder;

use crate::api_calls::CountCalls;
use crate::args::{RunArgs, is_http_url};
use crate::leader::fence::is_write;
use crate::leader::{Fence, connection};
use crate::sandbox::follow::Sandbox;
use crate::throttle::Throttle;

/// Clients for a cluster, or for two where the mesh has one of its own.
pub struct Connection {
    /// For the operator.
    pub client: Client,
    /// For the lease of an election: not held back by the others' calls, and each call is one try.
    pub election: Client,
    workloads: ApiServer,
    /// Where the mesh is in another cluster.
    mesh: Option<ApiServer>,
    /// Set where the cluster is a sandbox.
    pub sandbox: Option<Sandbox>,
}

/// What a person needs to know to mend a connection that fails.
struct ApiServer {
    /// For the start: without the client's own retries, which would hide why the API server does not answer.
    first_calls: Client,
    address: String,
    source: String,
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.address, self.source)
    }
}

/// A client for the cluster that the flags name. Must be called on the runtime that lives as long as the process: the
/// client's worker runs there.
///
/// Where there is a `fence`, writes of the operator are sent only while it lets them through.
///
/// # Errors
/// If there is no usable configuration. Nothing is sent yet.
pub async fn connect(args: &RunArgs, metrics: &Metrics, fence: Option<&Fence>) -> anyhow::Result<Connection> {
    let found = find(args).await?;
    let mesh = match args.kubeconfig_service_mesh.as_str() {
        "" => None,
        path => mesh_elsewhere(path, &found.config).await?,
    };
    let sandbox = found.sandbox.clone();
    let count = CountCalls::new(metrics.api_calls.clone());
    let workloads = Clients::new(found, args, &count, fence)?;
    let mesh = mesh.map(|found| Clients::new(found, args, &count, fence)).transpose()?;
    let (client, mesh) = match mesh {
        Some(mesh) => (mesh::joined(workloads.operator, mesh.operator), Some(mesh.server)),
        None => (workloads.operator, None),
    };
    Ok(Connection { client, election: workloads.election, workloads: workloads.server, mesh, sandbox })
}

/// The clients of one cluster.
struct Clients {
    operator: Client,
    election: Client,
    server: ApiServer,
}

impl Clients {
    /// Each cluster has its own limit of calls, as in Flagger.
    fn new(found: Found, args: &RunArgs, count: &CountCalls, fence: Option<&Fence>) -> anyhow::Result<Clients> {
        let Found { mut config, source, .. } = found;
        let address = shown(&config.cluster_url);
        if !is_http_url(&config.cluster_url.to_string()) {
            bail!("{source}: server {address}: expected http:// or https://");
        }
        config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("aviary/", env!("CARGO_PKG_VERSION")))));
        let throttle = Throttle::new(args.kubeconfig_qps, args.kubeconfig_burst);
        let builder = |config: Config| {
            ClientBuilder::try_from(config)
                .map_err(|error| anyhow!("set up the Kubernetes client from {source}: {}", explain::call(&error)))
        };
        let mut one_try = config.clone();
        one_try.default_retry = false;
        let operator = match fence {
            Some(fence) => {
                let reads = builder(config.clone())?.build();
                let writes = connection::client(&config, fence).map_err(|error| {
                    anyhow!("set up the Kubernetes client from {source}: {}", explain::call(&error))
                })?;
                fenced(reads, writes, &config.default_namespace, fence, &throttle, count)
            }
            None => builder(config)?.with_layer(&throttle).with_layer(count).build(),
        };
        let first_calls = builder(one_try.clone())?.with_layer(&throttle).with_layer(count).build();
        let election = builder(one_try)?.with_layer(count).build();
        Ok(Clients { operator, election, server: ApiServer { first_calls, address, source } })
    }
}

/// A client whose writes pass the fence at the last moment, after they waited for their turn, and have connections of
/// their own.
fn fenced(
    reads: Client,
    writes: Client,
    namespace: &str,
    fence: &Fence,
    throttle: &Throttle,
    count: &CountCalls,
) -> Client {
    let send = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let client = if is_write(request.method()) { writes.clone() } else { reads.clone() };
        async move { client.send(request).await }
    });
    Client::new(ServiceBuilder::new().layer(count).layer(throttle).layer(fence).service(send), namespace)
}

/// Scheme, host and port: a password before the host is nobody's business.
fn shown(address: &http::Uri) -> String {
    let authority = address.authority().map_or("", http::uri::Authority::as_str);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match address.scheme_str() {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    }
}

/// The cluster of the mesh, if it is another one than that of the workloads.
async fn mesh_elsewhere(path: &str, workloads: &Config) -> anyhow::Result<Option<Found>> {
    let source = format!("--kubeconfig-service-mesh={path}");
    let read = async { Found::read(Kubeconfig::read_from(Path::new(path))?, source.clone()).await };
    let mesh = read.await.map_err(|error| anyhow!("read {source}: {}", explain::kubeconfig(error)))?;
    let host = |config: &Config| (config.cluster_url.host().map(str::to_owned), config.cluster_url.port_u16());
    Ok((host(&mesh.config) != host(workloads)).then_some(mesh))
}

/// A configuration, in words where it is from, and whether it leads to a sandbox.
struct Found {
    config: Config,
    source: String,
    sandbox: Option<Sandbox>,
}

impl Found {
    fn elsewhere(config: Config, source: &str) -> Found {
        Found { config, source: source.to_owned(), sandbox: None }
    }

    async fn read(kubeconfig: Kubeconfig, source: String) -> Result<Found, KubeconfigError> {
        let sandbox = Sandbox::of(&kubeconfig);
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        if sandbox.is_some() {
            // It is on this machine, where a proxy that the environment names does not lead.
            config.proxy_url = None;
        }
        Ok(Found { config, source, sandbox })
    }
}

/// `--kubeconfig`, with `--master` before what it says; or else the service account. Flagger ends there; for a person's
/// laptop KUBECONFIG and `~/.kube/config` follow.
async fn find(args: &RunArgs) -> anyhow::Result<Found> {
    let master = match args.master.as_str() {
        "" => None,
        master => Some(master.parse::<http::Uri>().context("read --master")?),
    };
    if !args.kubeconfig.is_empty() {
        let source = format!("--kubeconfig={}", args.kubeconfig);
        let read = async {
            let mut kubeconfig = Kubeconfig::read_from(Path::new(&args.kubeconfig))?;
            // A file without a server is fine where a flag names one.
            if let Some(master) = &master {
                for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
                    cluster.server = Some(master.to_string());
                    // What the file says of its own server.
                    cluster.extensions = None;
                }
            }
            Found::read(kubeconfig, if master.is_some() { "--master".to_owned() } else { source.clone() }).await
        };
        return read.await.map_err(|error| anyhow!("read {source}: {}", explain::kubeconfig(error)));
    }
    if let Some(master) = master {
        return Ok(Found::elsewhere(Config::new(master), "--master"));
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        let config = Config::incluster().context("use the service account of this pod")?;
        return Ok(Found::elsewhere(config, "the service account of this pod"));
    }
    let source = match std::env::var("KUBECONFIG") {
        Ok(path) if !path.is_empty() => format!("KUBECONFIG={path}"),
        _ => "~/.kube/config".to_owned(),
    };
    let read = async { Found::read(Kubeconfig::read()?, source.clone()).await };
    let found = read.await.map_err(|error| {
        let why = explain::kubeconfig(error);
        anyhow!("find a cluster: pass --kubeconfig, set KUBECONFIG, or run in a pod; {source}: {why}")
    })?;
    tracing::info!(cluster = shown(&found.config.cluster_url), "Not in a cluster: using {source}");
    Ok(found)
}

/// The first calls get this long for an answer: a healthy API server takes milliseconds, a busy one a few seconds, and
/// whoever reads the log should not wait longer for the first sign.
const FIRST_CALL_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries: a log line every few seconds, and little load for a server that is starting.
const FIRST_CALL_PAUSE: Duration = Duration::from_secs(3);

impl Connection {
    /// Whether objects of the mesh are in another cluster than the workloads.
    pub fn mesh_is_elsewhere(&self) -> bool {
        self.mesh.is_some()
    }

    /// Logs the version of the API server, and makes sure that it serves the kinds that Aviary cannot do without. Waits
    /// for an API server that is silent or overloaded, and says so in the log at every try.
    ///
    /// # Errors
    /// If the API server cannot be reached, lacks a CustomResourceDefinition, or does not let us list one; all of them in
    /// one message that says what to do.
    pub async fn verify(&self, namespaces: &[String]) -> anyhow::Result<()> {
        let version = self.workloads.version().await?;
        tracing::info!("Connected to Kubernetes API {version}");
        if let Some(mesh) = &self.mesh {
            let version = mesh.version().await?;
            tracing::info!("Connected to Kubernetes API {version} of the service mesh at {mesh}");
        }
        let server = &self.workloads;
        let (mut missing, mut forbidden) = (Vec::new(), Vec::new());
        for kind in [&kinds::CANARY, &kinds::METRIC_TEMPLATE, &kinds::ALERT_PROVIDER] {
            let name = format!("{}.{}", kind.plural, kind.group);
            match server.insist(|| list_one(&server.first_calls, kind, namespaces)).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => missing.push(name),
                Err(kube::Error::Api(status)) if status.code == 403 => forbidden.push(status.message.clone()),
                Err(error) => return Err(server.failed(Some(&name), &error)),
            }
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            bail!("CustomResourceDefinition missing: {missing}; install with: aviary crds | kubectl apply -f -");
        }
        if !forbidden.is_empty() {
            bail!("not allowed to list what Aviary needs, check the ClusterRole: {}", forbidden.join("; "));
        }
        Ok(())
    }
}

impl ApiServer {
    async fn version(&self) -> anyhow::Result<String> {
        let version = self.insist(|| self.first_calls.apiserver_version()).await;
        version.map(|version| version.git_version).map_err(|error| self.failed(None, &error))
    }

    /// Calls until there is an answer that trying again would not change.
    async fn insist<T, F>(&self, call: impl Fn() -> F) -> kube::Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        loop {
            let cause = match tokio::time::timeout(FIRST_CALL_LIMIT, call()).await {
                Ok(Err(error)) if is_passing(&error) => explain::call(&error),
                Ok(answer) => return answer,
                Err(_) => format!("no answer within {} s", FIRST_CALL_LIMIT.as_secs()),
            };
            tracing::warn!("Waiting for the Kubernetes API at {self}: {cause}");
            tokio::time::sleep(FIRST_CALL_PAUSE).await;
        }
    }

    fn failed(&self, listing: Option<&str>, error: &kube::Error) -> anyhow::Error {
        let why = explain::call(error);
        match (error, listing) {
            (kube::Error::Api(_), None) => anyhow!("{self} refused the connection: {why}"),
            (kube::Error::Api(_), Some(name)) => anyhow!("list {name} at {self}: {why}"),
            _ => anyhow!("cannot reach {self}: {why}"),
        }
    }
}

/// Whether an API server answers so while it starts or is overloaded.
fn is_passing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 429 | 502..=504))
}

/// Lists one object, in each namespace or in the whole cluster.
async fn list_one(client: &Client, kind: &'static ObjectKind, namespaces: &[String]) -> kube::Result<()> {
    let resource = kind.api_resource();
    let one = ListParams::default().limit(1);
    if namespaces.is_empty() {
        Api::<DynamicObject>::all_with(client.clone(), &resource).list(&one).await?;
    }
    for namespace in namespaces {
        Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource).list(&one).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::args::{Cli, Command};

    /// An API server that answers lists of these kinds with these statuses, and everything else with success.
    fn server(refused: &'static [(&'static str, u16)]) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let path = request.uri().path();
            let refusal = refused.iter().find(|(plural, _)| path.ends_with(plural));
            let (code, body) = match refusal {
                Some((plural, code)) => (*code, failure(plural, *code)),
                None if path == "/version" => (200, version()),
                None => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})),
            };
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
        });
        Client::new(service, "default")
    }

    fn failure(plural: &str, code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": format!("no {plural} for you"), "code": code})
    }

    fn version() -> Value {
        json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""})
    }

    fn connection(client: Client) -> Connection {
        let (address, source) = ("https://k8s:6443".to_owned(), "--kubeconfig=x".to_owned());
        let workloads = ApiServer { first_calls: client.clone(), address, source };
        Connection { election: client.clone(), client, workloads, mesh: None, sandbox: None }
    }

    async fn refusal(refused: &'static [(&'static str, u16)]) -> String {
        let error = connection(server(refused)).verify(&["test".to_owned()]).await.expect_err("refused");
        format!("{error:#}")
    }

    #[tokio::test]
    async fn missing_kinds_are_named_with_the_remedy() {
        connection(server(&[])).verify(&[]).await.unwrap();
        assert_eq!(
            refusal(&[("canaries", 404), ("alertproviders", 404)]).await,
            "CustomResourceDefinition missing: canaries.flagger.app, alertproviders.flagger.app; install with: aviary crds \
             | kubectl apply -f -"
        );
        let forbidden = refusal(&[("metrictemplates", 403)]).await;
        assert_eq!(
            forbidden,
            "not allowed to list what Aviary needs, check the ClusterRole: no metrictemplates for you"
        );
        assert_eq!(
            refusal(&[("canaries", 500)]).await,
            "list canaries.flagger.app at https://k8s:6443 (from --kubeconfig=x): 500 Internal Server Error: no canaries for you"
        );
        assert_eq!(
            refusal(&[("version", 401)]).await,
            "https://k8s:6443 (from --kubeconfig=x) refused the connection: 401 Unauthorized: the token or certificate was \
             refused"
        );
    }

    /// Silent at first, then overloaded, then well.
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_not_ready_is_waited_for() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (code, body) = match call {
                    0 => std::future::pending().await,
                    1 => (503, failure("version", 503)),
                    _ if request.uri().path() == "/version" => (200, version()),
                    _ => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})),
                };
                let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
                Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
            }
        });
        let start = tokio::time::Instant::now();
        connection(Client::new(service, "default")).verify(&[]).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 6);
        assert_eq!(start.elapsed().as_secs(), (FIRST_CALL_LIMIT + 2 * FIRST_CALL_PAUSE).as_secs());
    }

    async fn refused_config(flags: &[&str]) -> String {
        let argv = ["flagger"].iter().chain(flags).map(std::ffi::OsString::from);
        let Ok(Cli { command: Command::Run(args) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
        let _ = rustls::crypto::ring::default_provider().install_default();
        match connect(&args, &Metrics::new().unwrap(), None).await {
            Ok(_) => panic!("{flags:?} is usable"),
            Err(error) => crate::one_line(&error),
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named_and_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let flag = format!("--kubeconfig={path}");

        std::fs::write(file.path(), "users:\n- name: me\n  user:\n    token: s3cr3t\n   x: y\n").unwrap();
        let error = refused_config(&[&flag]).await;
        assert!(error.starts_with(&format!("read {flag}: line ")) && !error.contains("s3cr3t"), "{error}");

        let config = "{kind: Config, apiVersion: v1, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
                      clusters: [{name: c, cluster: {server: \"me:s3cr3t@k8s:6443\"}}], users: [{name: u, user: {}}]}";
        std::fs::write(file.path(), config).unwrap();
        let error = refused_config(&[&flag]).await;
        assert_eq!(error, format!("{flag}: server k8s:6443: expected http:// or https://"));

        std::fs::remove_file(file.path()).unwrap();
        let error = refused_config(&[&flag]).await;
        assert!(error.contains(&path.to_string()) && error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_mesh_in_another_cluster_has_clients_of_its_own() {
        let config = |server: &str| {
            format!(
                "{{kind: Config, apiVersion: v1, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
                 clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}], users: [{{name: u, user: {{}}}}]}}"
            )
        };
        let (workloads, mesh) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::fs::write(workloads.path(), config("http://127.0.0.1:6443")).unwrap();
        let flag = format!("--kubeconfig={}", workloads.path().display());
        let mesh_flag = format!("--kubeconfig-service-mesh={}", mesh.path().display());
        let connected = async || {
            let argv = ["flagger", &flag, &mesh_flag].map(std::ffi::OsString::from);
            let Ok(Cli { command: Command::Run(args) }) = Cli::parse_from(argv, |_| None) else {
                panic!("{mesh_flag}")
            };
            let _ = rustls::crypto::ring::default_provider().install_default();
            connect(&args, &Metrics::new().unwrap(), None).await.unwrap()
        };
        std::fs::write(mesh.path(), config("http://127.0.0.1:6443")).unwrap();
        assert!(!connected().await.mesh_is_elsewhere(), "the same cluster");
        std::fs::write(mesh.path(), config("http://me:s3cr3t@10.0.0.2:6443")).unwrap();
        let connection = connected().await;
        assert!(connection.mesh_is_elsewhere());
        assert_eq!(
            connection.mesh.unwrap().to_string(),
            format!("http://10.0.0.2:6443 (from {mesh_flag})"),
            "a password before the host is not shown"
        );

        std::fs::write(mesh.path(), config("k8s")).unwrap();
        let error = refused_config(&[&flag, &mesh_flag]).await;
        assert!(
            error.starts_with(&format!("{mesh_flag}: server ")) && error.ends_with("expected http:// or https://"),
            "{error}"
        );
        std::fs::remove_file(mesh.path()).unwrap();
        let error = refused_config(&[&flag, &mesh_flag]).await;
        assert!(error.starts_with(&format!("read {mesh_flag}: ")) && error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_mesh_that_refuses_us_is_named() {
        let mut connection = connection(server(&[]));
        let (address, source) = ("https://mesh:6443".to_owned(), "--kubeconfig-service-mesh=y".to_owned());
        connection.mesh = Some(ApiServer { first_calls: server(&[("version", 401)]), address, source });
        let error = connection.verify(&[]).await.expect_err("refused");
        assert_eq!(
            format!("{error:#}"),
            "https://mesh:6443 (from --kubeconfig-service-mesh=y) refused the connection: 401 Unauthorized: the token or \
             certificate was refused"
        );
    }
}
