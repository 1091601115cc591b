//! Flags of `aviary sandbox`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use clap::{Args, ValueEnum};

const SANDBOX_HELP: &str = "\
The sandbox is a Kubernetes API server with workload controllers, Istio's routing and metrics, users who send requests, and \
Prometheus, all in this process. Aviary's CustomResourceDefinitions are installed; the operator is a process of its own, as \
on any cluster. Nothing is kept when the sandbox ends.

--kubeconfig names a file that the sandbox writes when it is ready and removes when it ends. A file that is no sandbox's is \
never overwritten. `aviary run` reads from it how fast the sandbox's clock runs, and how to reach the services of the \
sandbox by their names (http://prometheus:9090, http://flagger-loadtester.test/), so that manifests work unmodified.

Containers do not run: a pod is started, becomes ready and answers its share of the users' requests as --error-rate and \
--latency say. flagger-loadtester is there in every namespace: it accepts every load test, its gates are open until they \
are closed, and it asks for no rollback.

There is no authentication: whoever reaches the port may do everything. It listens on this machine only unless --address \
says otherwise.

Exit code 0 after SIGINT, SIGTERM or SIGHUP; 1 if the sandbox cannot start.

Examples:
  aviary sandbox --kubeconfig=sandbox.yaml
  # In two other terminals
  aviary run --kubeconfig=sandbox.yaml
  kubectl --kubeconfig=sandbox.yaml apply -f podinfo.yaml
  # A minute of releases passes in a second, and version 6.0.2 fails every tenth request
  aviary sandbox --kubeconfig=sandbox.yaml --speed=60 --error-rate=podinfo:6.0.2=0.1
  # For scripts
  aviary sandbox --kubeconfig=sandbox.yaml --output=json -f manifests/";

/// Arguments of `aviary sandbox`.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_long_help = SANDBOX_HELP)]
pub struct SandboxArgs {
    /// File for the kubeconfig; it is removed when the sandbox ends.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// Port of the Kubernetes API; 0 for any free one.
    #[arg(long, value_name = "PORT", default_value = "0")]
    pub port: u16,
    /// Port of Prometheus' query API; 0 for any free one.
    #[arg(long, value_name = "PORT", default_value = "0")]
    pub prometheus_port: u16,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// How many times faster than real time the cluster's clock runs.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed, allow_negative_numbers = true)]
    pub speed: f64,
    /// Namespaces to create, separated by commas.
    #[arg(long, short, value_name = "NAMES", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Manifests to apply before anything else: files, directories, or `-` for standard input.
    #[arg(long, short, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Requests of users per second to every service that a Canary or a VirtualService names.
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = load, allow_negative_numbers = true)]
    pub load: f64,
    /// Requests per second for which a pod uses all the CPU that it asks for; autoscalers follow it. 0: they only keep their
    /// bounds.
    #[arg(long, value_name = "NUMBER", default_value_t = crate::embedded::REQUESTS_PER_POD, value_parser = load,
        allow_negative_numbers = true)]
    pub requests_per_pod: f64,
    /// Part of the requests, 0 to 1, that pods fail whose image's name contains IMAGE.
    #[arg(long, value_name = "IMAGE=RATIO", value_parser = error_rate)]
    pub error_rate: Vec<(String, f64)>,
    /// 99th percentile of the time that pods take for a request whose image's name contains IMAGE.
    #[arg(long, value_name = "IMAGE=DURATION", value_parser = latency)]
    pub latency: Vec<(String, Duration)>,
    /// Decides generated names and other chance.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub seed: u64,
    /// How the addresses are printed when the sandbox is ready.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "text")]
    pub output: SandboxOutput,
    /// Log what happens. RUST_LOG, if set, wins.
    #[arg(long, short)]
    pub verbose: bool,
}

/// How the addresses are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SandboxOutput {
    /// With commands to copy.
    Text,
    /// One JSON object on one line.
    Json,
}

/// More users than any one service has.
const MOST_REQUESTS: f64 = 1e7;

/// Speeds that are served. Slower than a hundredth one waits in vain; faster than a thousand an analysis interval of 10 s is
/// shorter than the few requests of a check take.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

fn speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed| SPEEDS.contains(speed))
        .ok_or_else(|| format!("expected a number from {} to {}", SPEEDS.start(), SPEEDS.end()))
}

fn load(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|load: &f64| (0.0..=MOST_REQUESTS).contains(load))
        .ok_or_else(|| format!("expected a number of requests per second, 0 or more, and at most {MOST_REQUESTS}"))
}

fn error_rate(text: &str) -> Result<(String, f64), String> {
    let (image, ratio) = image_and(text, "podinfo:6.0.2=0.1")?;
    Ok((image, super::ratio(ratio)?))
}

fn latency(text: &str) -> Result<(String, Duration), String> {
    let (image, duration) = image_and(text, "podinfo:6.0.2=800ms")?;
    Ok((image, parse_go_duration(duration).map_err(|error| error.to_string())?))
}

fn image_and<'a>(text: &'a str, example: &str) -> Result<(String, &'a str), String> {
    match text.rsplit_once('=') {
        Some((image, value)) if !image.is_empty() => Ok((image.to_owned(), value)),
        _ => Err(format!("expected a part of an image's name and a value, for example {example}")),
    }
}
