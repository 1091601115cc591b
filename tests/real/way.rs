//! A way to the API server on which something may happen to each request before it arrives.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::Inside;

/// Leads from a plain address to the API server, for one account; ends when it is dropped.
pub struct Way {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Way {
    /// For an account that was granted its rights. Each request waits for `before`, which is told its method and path.
    pub async fn start<Before, Waiting>(bench: &Inside, account: &str, before: Before) -> Way
    where
        Before: Fn(Method, String) -> Waiting + Clone + Send + Sync + 'static,
        Waiting: Future<Output = ()> + Send,
    {
        let client = bench.client(account).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (client, before) = (client.clone(), before.clone());
            async move {
                before(request.method().clone(), request.uri().path().to_owned()).await;
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                let answer = client.send(Request::from_parts(head, Body::from(body))).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>(answer)
            }
        });
        let serving = tokio::spawn(aviary_sim::http::serve(service, listener)).abort_handle();
        Way { address, serving }
    }

    /// With which a controller takes this way: the file, and the name under which the bench knows it.
    pub fn kubeconfig(&self, bench: &Inside, account: &str) -> (PathBuf, String) {
        let direct = std::fs::read_to_string(bench.kubeconfig(account)).unwrap();
        let text = direct.replace("\"https://10.99.0.1:6443\"", &format!("\"http://{}\"", self.address));
        assert_ne!(text, direct, "the API server has another address: {direct}");
        let name = format!("{account}-on-its-way");
        let path = bench.kubeconfig(&name);
        std::fs::write(&path, text).unwrap();
        (path, name)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
