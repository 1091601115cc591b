//! Flags of `aviary run`: Flagger's, with its names and defaults, and a few of Aviary's own.

use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use aviary_providers::traffic::{self, UnknownProvider};
use clap::{ArgAction, Args, FromArgMatches, ValueEnum};

use crate::leader::{self, Settings, Timing};

const RUN_HELP: &str = "\
Flags are also accepted in Go's notation (-name=value, -name value, -switch, -switch=false), so that manifests and charts \
made for Flagger work unchanged. The environment variables named above win over their flags unless they are empty. \
Durations are written as in Go: 90s, 1m30s, 500ms. Flags of Go's logging library (-v, -logtostderr, ...) are accepted and \
ignored. RUST_LOG, if set, wins over --log-level.

Without --kubeconfig and --master the operator uses its service account; outside of a cluster it uses KUBECONFIG or \
~/.kube/config, and says so.

HTTP endpoints:
  /healthz                        200 as long as the process serves
  /readyz                         200 once the watch caches are synced, 503 before; also of a replica that does not lead
  /metrics                        Prometheus metrics
  /debug/canaries                 what every canary is doing and what it waits for, as JSON
  /debug/canaries/NAMESPACE/NAME  the same for one canary

Signals: the first SIGINT or SIGTERM finishes the writes in flight (10 s at most), gives the Lease of the leader to the \
next replica and exits with 0, a second one exits with 1 at once. A replica that loses its Lease exits with 1.

Examples:
  aviary run --mesh-provider=istio --metrics-server=http://prometheus.istio-system:9090
  # Only two namespaces
  aviary run --namespace=team-a,team-b
  # A missing answer of Prometheus fails the check, as in Flagger
  aviary run --metrics-errors=fail";

/// Flags of `aviary run`.
///
/// Has no `Debug`: it holds tokens and webhook addresses.
#[derive(Args)]
#[command(after_long_help = RUN_HELP, args_override_self = true)]
pub struct RunArgs {
    /// Path of a kubeconfig. Empty: the service account in a pod, and elsewhere KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, help_heading = KUBERNETES)]
    pub kubeconfig: String,
    /// Address of the API server; wins over the one in the kubeconfig.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = KUBERNETES)]
    pub master: String,
    /// Calls to the API server per second, on average; 0 for no limit.
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = finite, allow_negative_numbers = true,
        help_heading = KUBERNETES)]
    pub kubeconfig_qps: f64,
    /// Calls to the API server that may be made at once before --kubeconfig-qps holds them back.
    #[arg(long, value_name = "NUMBER", default_value = "250", help_heading = KUBERNETES)]
    pub kubeconfig_burst: u32,
    /// Path of the kubeconfig of the cluster with the mesh's control plane, where objects of the mesh are written; without it,
    /// that of the workloads.
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, help_heading = KUBERNETES)]
    pub kubeconfig_service_mesh: String,
    /// Namespaces to watch, separated by commas. Empty: all.
    #[arg(long, value_name = "NAMES", default_value = "", hide_default_value = true, help_heading = KUBERNETES)]
    pub namespace: String,
    /// Refuse canaries that use metric templates or alert providers of another namespace.
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool, action = ArgAction::Set, help_heading = KUBERNETES)]
    pub no_cross_namespace_refs: bool,

    /// Provider of canaries that name none in spec.provider.
    #[arg(long, value_name = "NAME", default_value = "istio", help_heading = RELEASES)]
    pub mesh_provider: String,
    /// Labels that select the pods of a workload, in order of preference, separated by commas.
    #[arg(long, value_name = "NAMES", default_value = "app,name,app.kubernetes.io/name", help_heading = RELEASES)]
    pub selector_labels: String,
    /// Prefixes of labels and annotations that the primary takes over, separated by commas; `*` for all.
    #[arg(long, value_name = "PREFIXES", default_value = "", hide_default_value = true, help_heading = RELEASES)]
    pub include_label_prefix: String,
    /// Release changes of ConfigMaps and Secrets like changes of the image.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool, action = ArgAction::Set, help_heading = RELEASES)]
    pub enable_config_tracking: bool,
    /// How long the mesh may take to follow a change of routes: pods that users were routed away from are kept this long.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = go_duration, help_heading = RELEASES)]
    pub traffic_settle_time: Duration,
    /// How long the mesh may take to hear of pods that became available: they get no users before.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = go_duration, help_heading = RELEASES)]
    pub endpoints_settle_time: Duration,
    /// Statuses with which a webhook says yes; Flagger's are 200-202.
    #[arg(long, value_name = "STATUSES", value_enum, default_value = "200-202", help_heading = RELEASES)]
    pub webhook_success: WebhookStatuses,
    /// Prefix of the annotations of NGINX ingresses. Not served yet.
    #[arg(long, value_name = "PREFIX", default_value = INGRESS_PREFIX, help_heading = RELEASES)]
    pub ingress_annotations_prefix: String,
    /// Class of the ingresses of Contour. Not served yet.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = RELEASES)]
    pub ingress_class: String,

    /// Address of Prometheus, for built-in and inline metrics.
    #[arg(long, value_name = "URL", default_value = "http://prometheus:9090", help_heading = METRICS)]
    pub metrics_server: String,
    /// Time between the checks of canaries of Flagger 0.1 (with a canaryAnalysis), at least 1s. All others name their interval.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = go_duration, help_heading = RELEASES)]
    pub control_loop_interval: Duration,
    /// Shorter intervals of canaries count as this. For tests: in production there is nothing to be won below Flagger's 10s.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = go_duration, hide = true)]
    pub shortest_interval: Duration,
    /// What a missing answer of a metrics backend does (connection refused, timeout, 5xx, 429).
    #[arg(long, value_name = "POLICY", value_enum, default_value = "hold", help_heading = METRICS)]
    pub metrics_errors: MetricsErrors,
    /// With --metrics-errors=hold: missing answers fail checks after the backend was away this long.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration, help_heading = METRICS)]
    pub metrics_outage_limit: Duration,

    /// Address of the Slack webhook for canaries without alerts of their own [env: SLACK_URL].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub slack_url: String,
    /// Token of a Slack bot [env: SLACK_TOKEN].
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub slack_token: String,
    /// HTTP proxy on the way to Slack [env: SLACK_PROXY_URL].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub slack_proxy_url: String,
    /// Name that Slack shows as the sender.
    #[arg(long, value_name = "NAME", default_value = "flagger", help_heading = ALERTS)]
    pub slack_user: String,
    /// Channel of Slack.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub slack_channel: String,
    /// Address of the Microsoft Teams webhook; wins over Slack [env: MSTEAMS_URL].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub msteams_url: String,
    /// HTTP proxy on the way to Microsoft Teams [env: MSTEAMS_PROXY_URL].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub msteams_proxy_url: String,
    /// Address for events of canaries without event hooks [env: EVENT_WEBHOOK_URL].
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub event_webhook: String,
    /// Name of this cluster, shown in alerts.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = ALERTS)]
    pub cluster_name: String,

    /// Least severe level that is logged: debug, info, warn, error, fatal or panic; anything else is info.
    #[arg(long, value_name = "LEVEL", default_value = "debug", help_heading = PROCESS)]
    pub log_level: String,
    /// Format of the log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "json", help_heading = PROCESS)]
    pub zap_encoding: LogEncoding,
    /// Port of the HTTP endpoints.
    #[arg(long, value_name = "PORT", default_value = "8080", help_heading = PROCESS)]
    pub port: u16,
    /// Run several replicas, of which one acts. The others keep their caches warm and take over.
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool, action = ArgAction::Set, help_heading = PROCESS)]
    pub enable_leader_election: bool,
    /// Namespace of the Lease for --enable-leader-election, unless --namespace is set: then it is the first of those.
    #[arg(long, value_name = "NAME", default_value = "kube-system", help_heading = PROCESS)]
    pub leader_election_namespace: String,
    /// A leader that is gone is replaced after this long.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = go_duration, help_heading = PROCESS)]
    pub leader_election_lease_duration: Duration,
    /// A leader that cannot renew its Lease for this long stops; less than the lease duration, by what a write may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = go_duration, help_heading = PROCESS)]
    pub leader_election_renew_deadline: Duration,
    /// Between two renewals of the Lease.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = go_duration, help_heading = PROCESS)]
    pub leader_election_retry_period: Duration,
    /// Print the version and exit.
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", hide_default_value = true, value_parser = go_bool, action = ArgAction::Set,
        help_heading = PROCESS)]
    pub version: bool,

    /// Workers of Flagger's queue. Aviary has no such limit.
    #[arg(long, value_name = "NUMBER", default_value = "2", help_heading = NO_EFFECT)]
    pub threadiness: i64,
    /// A setting of Flagger's logging library.
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool, action = ArgAction::Set, help_heading = NO_EFFECT)]
    pub zap_replace_globals: bool,
}

const KUBERNETES: &str = "Kubernetes";
const RELEASES: &str = "Releases";
const METRICS: &str = "Metrics";
const ALERTS: &str = "Alerts";
const PROCESS: &str = "Process";
const NO_EFFECT: &str = "Accepted for Flagger's sake, without effect";

const INGRESS_PREFIX: &str = "nginx.ingress.kubernetes.io";

/// Statuses with which a webhook says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookStatuses {
    /// 200, 201 and 202.
    #[value(name = "200-202")]
    UpTo202,
    /// All from 200 to 299.
    #[value(name = "2xx")]
    Any2xx,
}

/// What a missing answer of a metrics backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsErrors {
    /// The canary holds and says so.
    Hold,
    /// The check fails, as in Flagger.
    Fail,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogEncoding {
    /// One JSON object per line.
    Json,
    /// For people.
    Console,
}

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
    /// Nothing: levels above `error` exist in Flagger's logging library only.
    Off,
}

/// A flag that is set to something that matters in Flagger and not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedFlag {
    /// Name without dashes.
    pub flag: &'static str,
    /// What that means.
    pub consequence: &'static str,
}

impl RunArgs {
    /// Flags that hold tokens, and addresses that are as good as one, with the environment variables that stand for them.
    pub const SECRETS: [(&'static str, &'static str); 6] = [
        ("slack-url", "SLACK_URL"),
        ("slack-token", "SLACK_TOKEN"),
        ("slack-proxy-url", "SLACK_PROXY_URL"),
        ("msteams-url", "MSTEAMS_URL"),
        ("msteams-proxy-url", "MSTEAMS_PROXY_URL"),
        ("event-webhook", "EVENT_WEBHOOK_URL"),
    ];

    /// The settings of `aviary run` without flags.
    ///
    /// # Errors
    /// A default is invalid; there is a test that none is.
    pub fn without_flags() -> Result<RunArgs, clap::Error> {
        let command = RunArgs::augment_args(clap::Command::new("run"));
        RunArgs::from_arg_matches(&command.try_get_matches_from(["run"])?)
    }

    /// Environment variables win over flags unless they are empty, as in Flagger.
    pub(super) fn take_environment(&mut self, environment: impl Fn(&str) -> Option<String>) {
        let overrides = [
            ("SLACK_URL", &mut self.slack_url),
            ("SLACK_TOKEN", &mut self.slack_token),
            ("SLACK_PROXY_URL", &mut self.slack_proxy_url),
            ("MSTEAMS_URL", &mut self.msteams_url),
            ("MSTEAMS_PROXY_URL", &mut self.msteams_proxy_url),
            ("EVENT_WEBHOOK_URL", &mut self.event_webhook),
        ];
        for (variable, flag) in overrides {
            if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                *flag = value;
            }
        }
    }

    /// Refuses addresses that cannot be used, and a mesh provider that nobody knows. Flagger takes the latter for `istio`;
    /// one that it has and Aviary has not yet passes, since canaries may name another in `spec.provider`.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_addresses()?;
        self.check_election()?;
        match traffic::for_name(&self.mesh_provider) {
            Err(error @ UnknownProvider::Unknown { .. }) => {
                Err(format!("invalid value '{}' for '--mesh-provider <NAME>': {error}", self.mesh_provider))
            }
            Ok(_) | Err(UnknownProvider::NotYet { .. }) => Ok(()),
        }
    }

    /// The values are not repeated: they may hold a password, and the address of a chat's webhook is one.
    fn check_addresses(&self) -> Result<(), String> {
        let addresses = [
            ("--metrics-server", &self.metrics_server, "http://prometheus:9090"),
            ("--slack-url (or SLACK_URL)", &self.slack_url, "https://hooks.slack.com/services/..."),
            ("--slack-proxy-url (or SLACK_PROXY_URL)", &self.slack_proxy_url, "http://proxy:3128"),
            ("--msteams-url (or MSTEAMS_URL)", &self.msteams_url, "https://example.webhook.office.com/..."),
            ("--msteams-proxy-url (or MSTEAMS_PROXY_URL)", &self.msteams_proxy_url, "http://proxy:3128"),
            ("--event-webhook (or EVENT_WEBHOOK_URL)", &self.event_webhook, "https://events.example.com/..."),
        ];
        for (flag, address, example) in addresses {
            if !address.is_empty() && !is_http_url(address) {
                return Err(format!("invalid value for {flag}: expected http:// or https://, for example {example}"));
            }
        }
        if self.master.is_empty() || is_http_url(&self.master) {
            return Ok(());
        }
        // Everything up to an `@` may be a password.
        let shown = self.master.rsplit('@').next().unwrap_or_default();
        Err(format!("--master={shown}: expected http:// or https://, for example https://10.0.0.1:6443"))
    }

    /// The relations between the durations of an election: those that client-go asks for, and room for a write between the
    /// last moment of one leader and the first of the next.
    fn check_election(&self) -> Result<(), String> {
        let (lease, deadline) = (self.leader_election_lease_duration, self.leader_election_renew_deadline);
        if lease < Duration::from_secs(1) {
            return Err("--leader-election-lease-duration: expected one second at least".to_owned());
        }
        if deadline >= lease {
            return Err(
                "--leader-election-renew-deadline: expected less than --leader-election-lease-duration".to_owned()
            );
        }
        // Tries of followers are spread over up to 2.2 periods; those of the leader are not, and two fit in.
        let period = self.leader_election_retry_period;
        if period.is_zero() || period * 2 > deadline {
            return Err("--leader-election-retry-period: expected more than 0 and at most half of \
                 --leader-election-renew-deadline"
                .to_owned());
        }
        Ok(())
    }

    /// The part of this process in an election; `None` if there is none.
    pub fn election(&self) -> Option<Settings> {
        self.enable_leader_election.then(|| Settings {
            namespace: self.election_namespace(),
            identity: leader::identity(),
            timing: self.election_timing(),
        })
    }

    /// Where the Lease is: as in Flagger, in the namespace that is watched, where rights may end, or in one of its own.
    pub fn election_namespace(&self) -> String {
        self.namespaces().into_iter().next().unwrap_or_else(|| self.leader_election_namespace.clone())
    }

    /// The durations of an election.
    pub fn election_timing(&self) -> Timing {
        Timing {
            lease: self.leader_election_lease_duration,
            renew_deadline: self.leader_election_renew_deadline,
            retry: self.leader_election_retry_period,
        }
    }

    /// Namespaces to watch; empty for all.
    pub fn namespaces(&self) -> Vec<String> {
        // A space after a comma is a slip; names of namespaces have none.
        comma_list(&self.namespace).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    }

    /// The log level, and whether the text was understood.
    pub fn log_level(&self) -> (LogLevel, bool) {
        match self.log_level.as_str() {
            "debug" => (LogLevel::Debug, true),
            "info" => (LogLevel::Info, true),
            // `warning` stands in Flagger's documentation, yet its code does not know it.
            "warn" | "warning" => (LogLevel::Warn, true),
            "error" => (LogLevel::Error, true),
            "fatal" | "panic" => (LogLevel::Off, true),
            _ => (LogLevel::Info, false),
        }
    }

    /// Flags that ask for something that this version does not do.
    pub fn unused_flags(&self) -> Vec<UnusedFlag> {
        let not_yet = matches!(traffic::for_name(&self.mesh_provider), Err(UnknownProvider::NotYet { .. }));
        let flags = [
            ("mesh-provider", not_yet, "the provider is not served yet; only canaries with another spec.provider are"),
            (
                "ingress-annotations-prefix",
                self.ingress_annotations_prefix != INGRESS_PREFIX,
                "NGINX is not served yet",
            ),
            ("ingress-class", !self.ingress_class.is_empty(), "Contour is not served yet"),
        ];
        let unused = flags.into_iter().filter(|(_, is_set, _)| *is_set);
        unused.map(|(flag, _, consequence)| UnusedFlag { flag, consequence }).collect()
    }
}

/// Items between commas; none in an empty text. Not trimmed, as in Flagger.
pub(crate) fn comma_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

/// Whether the text is an address with `http` or `https` and a host, for both clients: each lets something through that
/// the other refuses.
pub(crate) fn is_http_url(text: &str) -> bool {
    if reqwest::Url::parse(text).is_err() {
        return false;
    }
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

/// A number that one can count with; `nan` and `inf` are texts of a number, too.
fn finite(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| "expected a number, for example 100".into())
}

/// The texts that Go takes for a boolean.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A duration in Go's notation.
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    parse_go_duration(text).map_err(|error| error.to_string())
}
