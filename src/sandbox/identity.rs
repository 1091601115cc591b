//! Whether the address that is announced leads to this sandbox: a tunnel, a rule of a firewall or another process may have taken
//! it, and whoever follows the kubeconfig would then work on somebody else's cluster.

use std::time::Duration;

use anyhow::bail;
use aviary_actors::Clock;
use aviary_actors::transport::{Network, Transport};
use aviary_providers::HttpRequest;
use serde_json::Value;

use super::addons::CLOCK_PATH;

/// A sandbox on this machine answers within milliseconds, and on a busy one within a second.
const LIMIT: Duration = Duration::from_secs(5);

/// What tells this sandbox from all others: processes on other machines, or before this one, may have its number.
pub(super) fn instance() -> String {
    let started = Clock::system().now().as_nanosecond();
    format!("{}-{started}", std::process::id())
}

/// Makes sure that it is this sandbox that answers at an address.
///
/// # Errors
/// If it is not, or nobody answers.
pub(super) async fn check(server: &str, instance: &str) -> anyhow::Result<()> {
    let network = Network::direct();
    let request = HttpRequest::get(format!("{server}{CLOCK_PATH}"));
    let answer = match tokio::time::timeout(LIMIT, network.send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => bail!("the sandbox listens, and {server} does not lead to it: {error}"),
        Err(_) => bail!("the sandbox listens, and {server} does not answer within {} s", LIMIT.as_secs()),
    };
    let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if told["instance"] != instance {
        bail!("something else than this sandbox answers at {server}: name another --port or --address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn another_sandbox_at_the_address_is_noticed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = aviary_sim::Cluster::new(aviary_sim::ClusterOptions::default());
        super::super::addons::install(&cluster, &[], "mine").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { cluster.serve(listener).await });
        check(&server, "mine").await.unwrap();
        let error = check(&server, "another").await.unwrap_err().to_string();
        assert!(error.starts_with("something else than this sandbox answers at http://127.0.0.1:"), "{error}");
        // Nobody may listen on this port without being asked.
        let error = check("http://127.0.0.1:1", "mine").await.unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1 does not lead to it"), "{error}");
    }
}
