//! The commands that stand beside a real cluster without containers: its network and its users.

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aviary_loadtest::cluster_network::{self, ClusterNetwork};
use aviary_loadtest::users::{self, Report, SECONDS_HEADER, Users};
use clap::Args;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Output, go_duration};

/// Answers of a second that have not come this long after its end are missing in its line, though not in the totals.
const SETTLING: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct ClusterNetworkArgs {
    /// File with the connection to the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Keep the names of all services in this file, between two marker lines, written in place
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Namespace whose services have their plain names in the hosts file, too
    #[arg(long, value_name = "NAMESPACE", requires = "hosts")]
    namespace: Option<String>,
}

#[derive(Args)]
pub(crate) struct UsersArgs {
    /// What to ask for: http://HOST[:PORT][/PATH]
    #[arg(long, value_name = "URL")]
    url: Uri,
    /// Host header, if it is another one than the URL's
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,
    /// Header of every request; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Requests per second, sent whether or not the earlier ones were answered
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// How long to send; without it until SIGINT or SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    duration: Option<Duration>,
    /// A request without an answer after this time has failed
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = go_duration)]
    timeout: Duration,
    /// Form of the report; a table grows every second, JSON comes at the end
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Exit with 1 if a request failed
    #[arg(long)]
    fail_on_errors: bool,
}

/// `NAME=VALUE`, or `NAME: VALUE` as curl has it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(['=', ':']).ok_or("expected NAME=VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is no value of a header"))?;
    Ok((name, value))
}

pub(crate) fn run_network(args: ClusterNetworkArgs) -> anyhow::Result<ExitCode> {
    // One thread: what costs time here is the kernel's work on sockets, and the other core is left to the cluster.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = signals()?;
        let file = args.kubeconfig.display();
        let kubeconfig =
            Kubeconfig::read_from(&args.kubeconfig).with_context(|| format!("read the kubeconfig {file}"))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.headers.push((USER_AGENT, HeaderValue::from_static("aviary-loadtest/cluster-network")));
        let client = kube::Client::try_from(config).with_context(|| format!("set up a client from {file}"))?;
        let options = cluster_network::Options { hosts: args.hosts, namespace: args.namespace };
        let mut network = ClusterNetwork::start(client, options);
        let reachable = network.until(|reachable| reachable.is_complete).await?;
        // Nobody may be reading.
        let _ = writeln!(
            io::stdout(),
            "{} pods answer, {} addresses accept connections",
            reachable.pods,
            reachable.addresses.len()
        );
        tokio::select! {
            () = stop => Ok(ExitCode::SUCCESS),
            () = network.ended() => Err(anyhow!("the network has ended")),
        }
    })
}

pub(crate) fn run_users(args: UsersArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = signals()?;
        let mut options = users::Options::new(args.url, args.rate)?
            .headers(args.header.into_iter().collect::<HeaderMap>())
            .timeout(args.timeout);
        if let Some(host) = args.host_header {
            options = options.host(host);
        }
        let users = Users::start(options)?;
        let mut next = 0;
        tokio::select! {
            () = stop => {}
            () = wait(args.duration) => {}
            told = tell_seconds(&users, &mut next), if matches!(args.output, Output::Table) => told?,
        }
        let report = users.stop().await;
        print(&report, args.output, next)?;
        let is_good = report.failures() == 0 && report.requests() > 0;
        Ok(if is_good || !args.fail_on_errors { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Tells of each second once it is over, from `next` on, which always is the first that was not told of.
async fn tell_seconds(users: &Users, next: &mut u64) -> io::Result<()> {
    writeln!(io::stdout(), "{SECONDS_HEADER}")?;
    loop {
        let settled = Duration::from_secs(*next + 1) + SETTLING;
        tokio::time::sleep(settled.saturating_sub(users.elapsed())).await;
        for line in users.second(*next) {
            writeln!(io::stdout(), "{line}")?;
        }
        *next += 1;
    }
}

/// The report; of the seconds in a table those from this one on.
fn print(report: &Report, output: Output, from: u64) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Table => {
            for line in report.seconds().iter().filter(|line| line.second >= from) {
                writeln!(out, "{line}")?;
            }
            write!(out, "{report}")?;
        }
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report.to_json())?)?,
    }
    Ok(())
}

async fn wait(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Ends with the first signal that asks the process to.
pub(crate) fn signals() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn headers_are_read_in_both_forms() {
        for text in ["x-user=insider", "x-user: insider", "X-User = insider"] {
            let (name, value) = super::header(text).unwrap();
            assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-user", "insider"), "{text}");
        }
        assert_eq!(super::header("cookie=a=b").unwrap().1, "a=b");
        assert!(super::header("x-user").is_err() && super::header("a b=c").is_err());
    }
}
