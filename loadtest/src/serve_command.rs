//! `serve`: its flags.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aviary::args::{LogEncoding, LogLevel, go_flags};
use aviary::{admin, logging};
use aviary_loadtest::serve::{Access, LoadTester, Network, Options, Targets, Token};
use clap::{ArgAction, Args};
use regex::Regex;
use tokio::net::TcpListener;

use crate::bench_commands::signals;
use crate::go_duration;

/// The verb.
const SERVE: &str = "serve";
/// Flagger's binary, which has no verbs.
const FLAGGERS: &str = "loadtester";

/// This machine, and addresses that hold for its neighbours alone, among them those of clouds' metadata.
const FORBIDDEN: &str = "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,::/128,::1/128,fe80::/10";

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Port to listen on; 0 for any free one
    #[arg(long, value_name = "PORT", default_value = "9090")]
    port: u16,
    /// Address to listen on; default: all of the machine's
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = log_level)]
    log_level: LogLevel,
    /// Form of the log: json or console
    #[arg(long, value_name = "FORM", default_value = "json", value_parser = log_encoding)]
    zap_encoding: LogEncoding,
    /// Taken for Flagger's sake; without effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = ArgAction::Set)]
    zap_replace_globals: bool,
    /// A task that runs this long is ended
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = go_duration)]
    timeout: Duration,
    /// Canaries' namespaces that are served; not anchored. Empty: all
    #[arg(long, value_name = "REGEXP", default_value = "", value_parser = regexp)]
    namespace_regexp: Option<Regex>,
    /// File with a token that callers must send, as Authorization: Bearer TOKEN or in a webhook's URL as http://canary:TOKEN@HOST/
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Run commands that are not understood in a shell, and helm and kubectl. Whoever reaches the load tester can then do what its
    /// service account can
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = ArgAction::Set)]
    allow_commands: bool,
    /// File that open gates are kept in over a restart
    #[arg(long, value_name = "FILE")]
    gates_file: Option<PathBuf>,
    /// Networks that requests are not sent to, separated by commas; empty for none. Commands of --allow-commands are not held back
    #[arg(long, value_name = "NETWORKS", default_value = FORBIDDEN, value_parser = networks)]
    forbidden_networks: Networks,
    /// HOST:PORT that requests are sent to must match this. Empty: all
    #[arg(long, value_name = "REGEXP", default_value = "", value_parser = regexp)]
    target_regexp: Option<Regex>,
    /// Tasks that run at once
    #[arg(long, value_name = "N", default_value = "200")]
    max_tasks: NonZeroUsize,
    /// Of these, tasks of one namespace
    #[arg(long, value_name = "N", default_value = "50")]
    max_tasks_per_namespace: NonZeroUsize,
}

#[derive(Clone)]
struct Networks(Vec<Network>);

fn networks(text: &str) -> Result<Networks, String> {
    let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
    networks.map(|network| network.parse().map_err(|error| format!("{error}"))).collect::<Result<_, _>>().map(Networks)
}

/// Clap has no value for "none": the empty expression fits everything.
fn regexp(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    match text {
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "error" => Ok(LogLevel::Error),
        _ => Err("expected debug, info, warn or error".to_owned()),
    }
}

fn log_encoding(text: &str) -> Result<LogEncoding, String> {
    match text {
        "json" => Ok(LogEncoding::Json),
        "console" => Ok(LogEncoding::Console),
        _ => Err("expected json or console".to_owned()),
    }
}

/// Rewrites `-port=8080` and the like, as Flagger's manifests have it.
pub(crate) fn go_notation(argv: impl Iterator<Item = OsString>, root: &clap::Command) -> Vec<OsString> {
    let mut argv: Vec<OsString> = argv.collect();
    let is_flaggers = argv.first().is_some_and(|program| Path::new(program).file_stem() == Some(OsStr::new(FLAGGERS)));
    if is_flaggers && argv.get(1).is_none_or(|first| first != SERVE) {
        argv.insert(1, SERVE.into());
    }
    if argv.get(1).is_some_and(|verb| verb == SERVE) {
        let flags = argv.split_off(2);
        argv.extend(go_flags::rewrite_verb(flags.into_iter(), SERVE, root));
    }
    argv
}

impl ServeArgs {
    fn options(&self) -> anyhow::Result<Options> {
        let token = self.token_file.as_ref().map(|path| {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("read {} (--token-file)", path.display()))?;
            Token::new(&text).with_context(|| format!("read {} (--token-file)", path.display()))
        });
        let given = |regexp: &Option<Regex>| regexp.clone().filter(|regexp| !regexp.as_str().is_empty());
        Ok(Options {
            timeout: self.timeout,
            access: Access { namespaces: given(&self.namespace_regexp), token: token.transpose()? },
            targets: Targets { forbidden: self.forbidden_networks.0.clone(), names: given(&self.target_regexp) },
            allows_commands: self.allow_commands,
            gates_file: self.gates_file.clone(),
            max_tasks: self.max_tasks,
            max_tasks_per_namespace: self.max_tasks_per_namespace,
        })
    }
}

/// Serves until a signal. Tasks end with it.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    logging::init(args.log_level, args.zap_encoding).context("start logging")?;
    let tester = Arc::new(LoadTester::new(args.options()?)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let end = runtime.block_on(async {
        let stop = signals()?;
        let listener = bind(args).await?;
        let address = url(listener.local_addr()?);
        tracing::info!(address, allow_commands = args.allow_commands, "load tester is ready");
        if args.allow_commands && args.token_file.is_none() {
            tracing::warn!("whoever reaches the port can run commands (--allow-commands); --token-file limits it");
        }
        // Nobody may be reading.
        let _ = writeln!(io::stdout(), "Load tester ready at {address}");
        tokio::select! {
            () = stop => Ok(ExitCode::SUCCESS),
            never = tester.serve(listener) => match never {},
        }
    });
    // Tasks are not waited for.
    runtime.shutdown_background();
    end
}

async fn bind(args: &ServeArgs) -> anyhow::Result<TcpListener> {
    match args.address {
        None => admin::bind(args.port).await,
        Some(address) => {
            let wanted = SocketAddr::from((address, args.port));
            TcpListener::bind(wanted).await.with_context(|| format!("listen on {wanted} (--address, --port)"))
        }
    }
}

/// Where clients on this machine find it.
fn url(listens: SocketAddr) -> String {
    let host = if listens.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listens.ip() };
    format!("http://{}", SocketAddr::from((host, listens.port())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::Parser;

    use super::*;
    use crate::{Cli, Command, built};

    fn args(argv: &[&str]) -> ServeArgs {
        let argv = go_notation(argv.iter().map(OsString::from), &built());
        let Command::Serve(args) = Cli::try_parse_from(argv).unwrap_or_else(|error| panic!("{error}")).command else {
            panic!("another verb")
        };
        *args
    }

    #[test]
    fn flaggers_flags_and_defaults_hold() {
        let given =
            args(&["loadtester", "-port=8080", "-log-level=info", "-timeout", "30m", "-namespace-regexp=team-.*"]);
        assert_eq!((given.port, given.log_level, given.timeout), (8080, LogLevel::Info, Duration::from_secs(1800)));
        let options = given.options().unwrap();
        assert_eq!(options.access.namespaces.unwrap().as_str(), "team-.*");

        // As the chart writes them when nothing is set.
        let given = args(&["/app/loadtester", "-namespace-regexp=", "-zap-replace-globals", "-zap-encoding=console"]);
        let options = given.options().unwrap();
        assert_eq!((given.port, given.log_level, given.timeout), (9090, LogLevel::Debug, Duration::from_secs(3600)));
        assert!(options.access.namespaces.is_none() && !options.allows_commands && options.gates_file.is_none());
    }

    #[test]
    fn limits_have_flags() {
        let given = args(&["aviary-loadtest", "serve", "--allow-commands", "--forbidden-networks=", "--max-tasks=3"]);
        let options = given.options().unwrap();
        assert!(options.allows_commands && options.targets.forbidden.is_empty() && options.targets.names.is_none());
        assert_eq!((options.max_tasks.get(), options.max_tasks_per_namespace.get()), (3, 50));
        assert_eq!(args(&["aviary-loadtest", "serve"]).options().unwrap().targets.forbidden.len(), 6);
    }
}
