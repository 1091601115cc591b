//! `aviary sandbox`: the embedded cluster over HTTP, for `kubectl`, for `aviary run` and for Grafana.

mod addons;
pub mod follow;
mod identity;
mod kubeconfig;
pub mod load_tester;
mod manifests;

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, anyhow};
use aviary_actors::Clock;
use aviary_sim::Cluster;
use aviary_sim::cluster::ClusterOptions;
use aviary_sim::traffic::{Behaviour, TrafficOptions};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{LogEncoding, LogLevel, SandboxArgs, SandboxOutput};
use crate::{embedded, logging};
use kubeconfig::{CONTEXT, KubeconfigFile};

/// Threads: one can serve requests while the other computes an answer of Prometheus.
const WORKERS: usize = 2;

/// User agent under which the sandbox sets itself up.
const AGENT: &str = "aviary-sandbox";

/// Serves a cluster until a signal.
///
/// # Errors
/// If a port cannot be used, the kubeconfig cannot be written, or a manifest cannot be applied.
pub fn run(args: &SandboxArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let level = if args.verbose { LogLevel::Info } else { LogLevel::Warn };
    logging::init(level, LogEncoding::Console).context("start logging")?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build().context("start the runtime")?;
    let end = runtime.block_on(serve(args, started, out));
    // Open watches would be waited for; nothing here needs an end of its own.
    runtime.shutdown_background();
    end.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: &SandboxArgs, started: Instant, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut stop = signals()?;
    let api = bind(args.address, args.port, "--port").await?;
    let prometheus = bind(args.address, args.prometheus_port, "--prometheus-port").await?;
    let addresses = Addresses { server: url(api.local_addr()?), prometheus: url(prometheus.local_addr()?) };
    let file = KubeconfigFile::claim(&args.kubeconfig)?;

    let cluster = start(args);
    let instance = identity::instance();
    addons::install(&cluster, &args.namespace, &instance).await?;
    manifests::apply(&cluster.client(AGENT), &args.filename).await?;
    tokio::spawn(aviary_sim::http::serve(cluster.prometheus().clone(), prometheus));
    let served = cluster.clone();
    tokio::spawn(async move { served.serve(api).await });
    identity::check(&addresses.server, &instance).await?;

    // Last: whoever waits for the file finds a cluster that answers. It is removed when it is dropped.
    let file = file.write(&kubeconfig::content(&addresses.server, args.speed))?;
    announce(args, &addresses, &file, started, out)?;
    stop.recv().await;
    Ok(())
}

/// A cluster whose clock begins with the time of day.
fn start(args: &SandboxArgs) -> Cluster {
    let cluster = Cluster::new(ClusterOptions {
        base_time: Clock::system().now(),
        speed: args.speed,
        traffic: TrafficOptions { default_load: args.load, ..TrafficOptions::default() },
        controllers: Some(embedded::controller_options(args.requests_per_pod)),
        ..embedded::cluster_options(args.seed)
    });
    for (image, behaviour) in behaviours(args) {
        cluster.traffic().set_behaviour(image, behaviour);
    }
    cluster
}

/// What the flags say of each image, in their order.
fn behaviours(args: &SandboxArgs) -> Vec<(&str, Behaviour)> {
    let mut behaviours: Vec<(&str, Behaviour)> = Vec::new();
    let mut change = |image, set: &dyn Fn(&mut Behaviour)| match behaviours.iter_mut().find(|known| known.0 == image) {
        Some((_, behaviour)) => set(behaviour),
        None => {
            let mut behaviour = Behaviour::default();
            set(&mut behaviour);
            behaviours.push((image, behaviour));
        }
    };
    for (image, ratio) in &args.error_rate {
        change(image.as_str(), &|behaviour| behaviour.error_ratio = *ratio);
    }
    for (image, p99) in &args.latency {
        let p99_ms = p99.as_secs_f64() * 1000.0;
        // A third of it at the median, as a healthy version has.
        change(image.as_str(), &|behaviour| behaviour.latency = Behaviour::slow(p99_ms / 3.0, p99_ms).latency);
    }
    behaviours
}

async fn bind(address: IpAddr, port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind((address, port)).await;
    bound.map_err(|error| match (port, error.kind()) {
        (0, _) => anyhow!("listen on {address} (--address): {error}"),
        (_, ErrorKind::AddrInUse) => {
            let wanted = SocketAddr::from((address, port));
            anyhow!("listen on {wanted} ({flag}): the port is in use; without {flag} a free one is taken")
        }
        _ => anyhow!("listen on {} ({flag}): {error}", SocketAddr::from((address, port))),
    })
}

/// Where clients on this machine find a listener.
fn url(listens: SocketAddr) -> String {
    let host = match listens.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::from((host, listens.port())))
}

struct Addresses {
    server: String,
    prometheus: String,
}

fn announce(
    args: &SandboxArgs,
    addresses: &Addresses,
    kubeconfig: &KubeconfigFile,
    started: Instant,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let Addresses { server, prometheus } = addresses;
    let (path, speed) = (kubeconfig.path().display(), args.speed);
    match args.output {
        SandboxOutput::Json => {
            let pid = std::process::id();
            let ready = json!({
                "server": server, "prometheus": prometheus, "kubeconfig": kubeconfig.path(), "context": CONTEXT,
                "speed": speed, "pid": pid,
            });
            writeln!(out, "{ready}")?;
        }
        SandboxOutput::Text => {
            let pace = if speed == 1.0 { String::new() } else { format!(", clock {speed} times as fast as real time") };
            let file = shell_word(&path.to_string());
            writeln!(out, "Sandbox ready in {} ms at {server}{pace}.", started.elapsed().as_millis())?;
            writeln!(out)?;
            writeln!(out, "  export KUBECONFIG={file}")?;
            writeln!(out, "  aviary run --kubeconfig={file}")?;
            writeln!(out, "  kubectl get namespaces")?;
            writeln!(out, "  curl '{prometheus}/api/v1/query?query=istio_requests_total'")?;
            writeln!(out)?;
            writeln!(out, "Grafana: a data source of type Prometheus with the address {prometheus}")?;
            writeln!(out, "Ctrl-C ends the sandbox and removes the kubeconfig.")?;
        }
    }
    out.flush()?;
    if !args.address.is_loopback() {
        tracing::warn!("anyone who reaches {} may do everything: the sandbox has no authentication", args.address);
    }
    Ok(())
}

/// A path as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+,:@%".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// SIGINT, SIGTERM, and the end of the terminal.
fn signals() -> anyhow::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("handle signals")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            signals.recv().await;
            // Full: another one came first.
            let _ = sender.try_send(());
        });
    }
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::args::{Cli, Command};

    fn args(flags: &[&str]) -> SandboxArgs {
        let argv = ["aviary", "sandbox", "--kubeconfig=x"].iter().chain(flags).map(std::ffi::OsString::from);
        let Ok(Cli { command: Command::Sandbox(args) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
        *args
    }

    #[test]
    fn errors_and_latency_of_one_image_are_one_behaviour() {
        let args = args(&["--error-rate=podinfo:6.0.2=0.1", "--latency=podinfo:6.0.2=900ms", "--latency=slow=3s"]);
        let behaviours = behaviours(&args);
        assert_eq!(behaviours.len(), 2);
        let (image, behaviour) = behaviours[0];
        assert_eq!((image, behaviour.error_ratio), ("podinfo:6.0.2", 0.1));
        assert_eq!((behaviour.latency.p50_ms, behaviour.latency.p99_ms), (300.0, 900.0));
        assert_eq!((behaviours[1].0, behaviours[1].1.error_ratio), ("slow", 0.0));
    }

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        assert_eq!(url("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url("10.0.0.7:80".parse().unwrap()), "http://10.0.0.7:80");
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(shell_word("/tmp/a-b.yaml"), "/tmp/a-b.yaml");
        assert_eq!(shell_word("/tmp/it's mine"), r"'/tmp/it'\''s mine'");
    }
}
