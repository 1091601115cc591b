//! The connection to the cluster.

use std::path::Path;

use anyhow::{Context, bail};
use aviary_actors::Metrics;
use aviary_providers::{ObjectKind, kinds};
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::ListParams;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DynamicObject;
use kube::{Api, Client, Config};

use crate::api_calls::CountCalls;
use crate::args::RunArgs;
use crate::throttle::Throttle;

/// A client for the cluster that the flags name. Must be called on the runtime that lives as long as the process: the
/// client's worker runs there.
///
/// # Errors
/// If there is no usable configuration. Nothing is sent yet.
pub async fn client(args: &RunArgs, metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = config(args).await?;
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("aviary/", env!("CARGO_PKG_VERSION")))));
    let builder = ClientBuilder::try_from(config).context("set up the Kubernetes client")?;
    let throttle = Throttle::new(args.kubeconfig_qps, args.kubeconfig_burst);
    Ok(builder.with_layer(&throttle).with_layer(&CountCalls::new(metrics.api_calls.clone())).build())
}

/// `--kubeconfig`, with `--master` before what it says; or else the service account. Flagger ends there; for a person's
/// laptop KUBECONFIG and `~/.kube/config` follow.
async fn config(args: &RunArgs) -> anyhow::Result<Config> {
    let master = match args.master.as_str() {
        "" => None,
        master => Some(master.parse::<http::Uri>().with_context(|| format!("read --master={master}"))?),
    };
    let options = KubeConfigOptions::default();
    if !args.kubeconfig.is_empty() {
        let read = async {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(Path::new(&args.kubeconfig))?, &options).await
        };
        let mut config = read.await.with_context(|| format!("read --kubeconfig={}", args.kubeconfig))?;
        config.cluster_url = master.unwrap_or(config.cluster_url);
        return Ok(config);
    }
    if let Some(master) = master {
        return Ok(Config::new(master));
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().context("use the service account of this pod");
    }
    let config = Config::from_kubeconfig(&options).await;
    let config = config.context("find a cluster: pass --kubeconfig, set KUBECONFIG, or run in a pod")?;
    tracing::info!(cluster = %config.cluster_url, "Not in a cluster: using KUBECONFIG or ~/.kube/config");
    Ok(config)
}

/// Logs the version of the API server, and makes sure that it serves the kinds that Aviary cannot do without.
///
/// # Errors
/// If the API server does not answer, lacks a CustomResourceDefinition, or does not let us list one; all of them in one
/// message that says what to do.
pub async fn verify(client: &Client, namespaces: &[String]) -> anyhow::Result<()> {
    let version = client.apiserver_version().await.context("connect to the Kubernetes API")?;
    tracing::info!("Connected to Kubernetes API {}", version.git_version);
    let (mut missing, mut forbidden) = (Vec::new(), Vec::new());
    for kind in [&kinds::CANARY, &kinds::METRIC_TEMPLATE, &kinds::ALERT_PROVIDER] {
        let name = format!("{}.{}", kind.plural, kind.group);
        match list_one(client, kind, namespaces).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => missing.push(name),
            Err(kube::Error::Api(status)) if status.code == 403 => forbidden.push(status.message.clone()),
            Err(error) => return Err(error).with_context(|| format!("list {name}")),
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

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

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

    async fn refusal(refused: &'static [(&'static str, u16)]) -> String {
        let error = verify(&server(refused), &["test".to_owned()]).await.expect_err("refused");
        format!("{error:#}")
    }

    #[tokio::test]
    async fn missing_kinds_are_named_with_the_remedy() {
        verify(&server(&[]), &[]).await.unwrap();
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
        let broken = refusal(&[("canaries", 500)]).await;
        assert!(
            broken.starts_with("list canaries.flagger.app: ") && broken.contains("no canaries for you"),
            "{broken}"
        );
    }
}
