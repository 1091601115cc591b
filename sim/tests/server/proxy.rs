use std::io;
use std::sync::Arc;

use aviary_sim::Cluster;
use aviary_sim::services::Backend;
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::api::PostParams;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{api, bare_cluster};

/// Says what it was asked.
fn echo() -> Backend {
    Arc::new(|request: Request<Bytes>| {
        let (head, body) = request.into_parts();
        let language = head.headers.get("accept-language").map(|value| value.to_str().unwrap().to_owned());
        let body = String::from_utf8(body.to_vec()).unwrap();
        let told =
            json!({"method": head.method.as_str(), "target": head.uri.to_string(), "body": body, "language": language});
        let response = Response::builder().status(StatusCode::IM_A_TEAPOT).body(Bytes::from(told.to_string()));
        std::future::ready(Ok(response.unwrap())).boxed()
    })
}

fn closed() -> Backend {
    Arc::new(|_: Request<Bytes>| std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed())
}

/// Services `prometheus` (9090, named `web`) and `podinfo`, of which only the first answers.
async fn cluster() -> Cluster {
    let cluster = bare_cluster(1);
    let services = api(&cluster.client("test"), "", "v1", "Service");
    for (name, port) in [("prometheus", 9090), ("podinfo", 80), ("broken", 80)] {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "web", "port": port}]},
        });
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    }
    cluster.services().answer("default", "prometheus", echo());
    cluster.services().answer("default", "broken", closed());
    cluster.services().answer_everywhere("tester", echo());
    cluster
}

async fn ask(cluster: &Cluster, service: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let uri = format!("/api/v1/namespaces/default/services/{service}");
    let request = Request::post(uri).header("accept-language", "de").body(Full::new(body.into())).unwrap();
    let response = cluster.frontend().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_service_gets_the_request_and_its_answer_comes_back() {
    let cluster = cluster().await;
    for port in ["", ":9090", ":web"] {
        let (status, told) = ask(&cluster, &format!("prometheus{port}/proxy/a/b?c=%20d"), "hello").await;
        assert_eq!(status, 418, "{port}");
        assert_eq!(told, json!({"method": "POST", "target": "/a/b?c=%20d", "body": "hello", "language": "de"}));
    }
    let (status, told) = ask(&cluster, "tester:1234/proxy", "").await;
    assert_eq!((status, &told["target"]), (418, &json!("/")), "one that is everywhere needs no object");
}

#[tokio::test]
async fn what_does_not_answer_is_told_as_a_status() {
    let cluster = cluster().await;
    for (service, code, message) in [
        ("nobody:80/proxy/", 404, "services \"nobody\" not found"),
        ("prometheus:80/proxy/", 503, "no service port \"80\" found for service \"prometheus\""),
        ("podinfo:80/proxy/", 503, "service \"podinfo\" does not answer: no containers run in the embedded cluster"),
        ("broken/proxy/", 503, "error trying to reach service: connect: connection refused"),
    ] {
        let (status, told) = ask(&cluster, service, "").await;
        assert_eq!((status, &told["kind"], &told["message"]), (code, &json!("Status"), &json!(message)));
    }
    let (status, told) = ask(&cluster, "prometheus/proxy/", vec![0; (3 << 20) + 1]).await;
    assert_eq!((status, &told["reason"]), (413, &json!("RequestEntityTooLarge")));
}

#[tokio::test]
async fn everything_else_is_answered_by_the_api_server() {
    let cluster = cluster().await;
    let request =
        Request::get("/api/v1/namespaces/default/services/prometheus").body(Full::<Bytes>::default()).unwrap();
    let response = cluster.frontend().oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "Service");
}
