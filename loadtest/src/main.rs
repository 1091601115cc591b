//! The `aviary-loadtest` binary.

mod bench_commands;
mod serve_command;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use aviary_loadtest::{chaos, fleet};
use bench_commands::{ClusterNetworkArgs, UsersArgs};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Load tests for controllers of progressive delivery.
#[derive(Parser)]
#[command(name = "aviary-loadtest", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run thousands of canaries through releases on an embedded cluster, in virtual time, and report what it cost.
    ///
    /// Exits with 1 if a release did not end as it should.
    Fleet(FleetArgs),
    /// Play releases under faults that a seed decides, and compare how they end with how they end without faults.
    ///
    /// Exits with 1 if one ends otherwise or an invariant breaks, and prints the command that plays it again.
    Chaos(ChaosArgs),
    /// Serve an embedded cluster over HTTP on which a fleet of canaries is initialized and idle.
    ///
    /// To measure a controller in a process of its own: aviary run --master=http://127.0.0.1:8001
    Cluster(ClusterArgs),
    /// Be the network of a cluster whose nodes run no containers: pods that answer, services that lead to them, and names.
    ///
    /// Every ready pod answers HTTP on its address, as the tag of its image says in parts between dashes: -err10 fails 10 %
    /// of the requests with status 500, -slow300 answers after 300 ms, -unready and -crash never listen (-start5, ready
    /// after 5 s, is up to the node). The annotation loadtest.aviary.app/behaviour overrides the tag and may be changed at
    /// any time: {"errorRatio": 0.1, "latency": "300ms"}. Answers carry x-pod and x-version. A pod that is deleted answers
    /// until its object is gone. Pods of Flagger's load tester answer as one, with gates, and carry out no commands.
    ///
    /// All addresses of pods and services must be local, as in a network namespace after
    /// "ip route replace local 10.244.0.0/16 dev lo". Every address and port takes a file descriptor.
    ClusterNetwork(ClusterNetworkArgs),
    /// Be the load tester that webhooks of canaries call, in the place of Flagger's.
    ///
    /// Flags, paths, payload and gates are Flagger's; a binary called loadtester needs no verb. hey, wrk, ghz (health checks),
    /// grpc_health_probe and curl with "| grep WORD" are understood and done in this process, without a shell. Everything else is
    /// refused unless --allow-commands is given.
    Serve(Box<serve_command::ServeArgs>),
    /// Send requests at a fixed rate, as users do, and report what became of them per second and per version.
    ///
    /// The version is the answer's x-version header. Latency counts from the moment at which a request was due. A request
    /// has failed if there is no connection, no answer in time, or a status of 400 and above.
    Users(UsersArgs),
}

#[derive(Args)]
struct ChaosArgs {
    /// Releases to play at least
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rollouts: u64,
    /// Seed of the first world; the others' follow
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Worlds that are played side by side; default: one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Args)]
struct ClusterArgs {
    /// Canaries, each with a Deployment of its own
    #[arg(long, value_name = "N", default_value_t = 1000)]
    canaries: usize,
    /// Namespaces that they are spread over
    #[arg(long, value_name = "N", default_value_t = 20)]
    namespaces: usize,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
}

#[derive(Args)]
struct FleetArgs {
    /// Canaries, each with a Deployment of its own
    #[arg(long, value_name = "N", default_value_t = 1000)]
    canaries: usize,
    /// Namespaces that they are spread over
    #[arg(long, value_name = "N", default_value_t = 20)]
    namespaces: usize,
    /// New revisions, at random times
    #[arg(long, value_name = "N", default_value_t = 200)]
    releases: usize,
    /// Share of the releases that fails a tenth of its requests, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    failing: f64,
    /// Interval of the analysis
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = go_duration)]
    interval: Duration,
    /// Virtual hours in which the releases happen
    #[arg(long, value_name = "HOURS", default_value_t = 1.0)]
    hours: f64,
    /// Decides which canaries release what and when
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Also exit with 1 if the controller costs more than it may
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn go_duration(text: &str) -> Result<Duration, String> {
    parse_go_duration(text).map_err(|error| error.to_string())
}

/// The command line with all that clap adds to it.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn main() -> anyhow::Result<ExitCode> {
    // Only fails if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Cli::parse_from(serve_command::go_notation(std::env::args_os(), &built())).command;
    if let Command::Serve(args) = &command {
        // Its log is Flagger's.
        return serve_command::run(args);
    }
    // Where a controller runs in this process, its warnings are part of what is tested. The network tells itself of a
    // broken connection, and once.
    let default = if matches!(command, Command::ClusterNetwork(_)) { "warn,kube_client=off" } else { "error" };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default)))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match command {
        Command::Fleet(args) => run_fleet(&args),
        Command::Chaos(args) => run_chaos(&args),
        Command::Cluster(args) => serve_cluster(&args),
        Command::ClusterNetwork(args) => bench_commands::run_network(args),
        Command::Users(args) => bench_commands::run_users(args),
        Command::Serve(args) => serve_command::run(&args),
    }
}

fn serve_cluster(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let ClusterArgs { canaries, namespaces, .. } = *args;
    let options = fleet::Options { canaries, namespaces, releases: 0, ..fleet::Options::default() };
    fleet::serve(&options, args.listen, |address| {
        // Nobody may be reading.
        let _ = writeln!(io::stdout(), "{canaries} canaries at http://{address}");
    })?;
    Ok(ExitCode::SUCCESS)
}

fn run_chaos(args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options =
        chaos::Options { rollouts: args.rollouts, seed: args.seed, threads: args.threads.unwrap_or_else(cores) };
    let told = std::sync::atomic::AtomicU64::new(0);
    let report = chaos::run(&options, |ended| {
        let percent = (ended * 100 / args.rollouts.max(1)).min(100);
        if percent / 5 > told.fetch_max(percent / 5, std::sync::atomic::Ordering::Relaxed) {
            // Nobody may be reading.
            let _ = writeln!(io::stderr(), "{percent} %: {ended} rollouts");
        }
    })?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Table => write!(out, "{report}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_fleet(args: &FleetArgs) -> anyhow::Result<ExitCode> {
    let report = fleet::run(&fleet::Options {
        canaries: args.canaries,
        namespaces: args.namespaces,
        releases: args.releases,
        failing: args.failing,
        interval: args.interval,
        time: Duration::try_from_secs_f64(args.hours * 3600.0)?,
        seed: args.seed,
    })?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Table => write!(out, "{report}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    let exceeded = if args.check { report.exceeded() } else { Vec::new() };
    for text in &exceeded {
        writeln!(io::stderr(), "exceeded: {text}")?;
    }
    let is_good = report.releases.wrong.is_empty() && exceeded.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
