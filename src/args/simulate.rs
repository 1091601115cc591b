//! Flags of `aviary simulate`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::run::{MetricsErrors, go_duration};

const SIMULATE_HELP: &str = "\
The files may hold whatever one would apply with kubectl: Canaries, Deployments, Services, autoscalers, ConfigMaps, Secrets, \
MetricTemplates, AlertProviders, Istio's objects. What a Canary refers to and the files do not hold is made up, and said so on \
standard error. The operator, as `aviary run` starts it, runs against an API server, workload controllers, users and Prometheus \
in this process, on virtual time. Nothing is sent over the network.

Without a scenario there is one release: the tag of the image is raised, the new version is healthy, webhooks answer 200. What \
a scenario can describe is in docs/scenario.md.

Exit code: 0 if every canary was promoted; 1 if one was rolled back, or was still waiting at --time-limit; 2 if something was \
not understood: an unreadable file, an invalid object, or a provider that is not built yet.

Examples:
  aviary simulate -f canary.yaml
  # What happens if the new version fails every tenth request?
  aviary simulate -f canary.yaml --scenario failing.yaml
  # In a pipeline
  helm template ./chart | aviary simulate -f - -n shop --output json";

/// Arguments of `aviary simulate`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = SIMULATE_HELP)]
pub struct SimulateArgs {
    /// Files, directories, or `-` for standard input; may be given several times.
    #[arg(long = "filename", short, value_name = "FILE", required = true, value_delimiter = ',')]
    pub filenames: Vec<String>,
    /// Read the directories below a directory, too.
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// Namespace of objects that name none.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// File that describes load, versions, releases and faults.
    #[arg(long, short, value_name = "FILE")]
    pub scenario: Option<String>,
    /// Format of the output.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: SimulateOutput,
    /// Decides everything random; wins over the scenario's. The same seed gives the same run.
    #[arg(long, value_name = "NUMBER", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Cluster time after the release at which waiting ends; wins over the scenario's. 6h without either.
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub time_limit: Option<Duration>,
    /// Print no colours. They are also off if NO_COLOR is set or the output is no terminal.
    #[arg(long)]
    pub no_color: bool,

    /// Provider of canaries that name none in spec.provider. Default: istio, but a canary that refers to something of
    /// another provider (an ingress, a gateway of the Gateway API) is then refused.
    #[arg(long, value_name = "NAME", help_heading = OPERATOR)]
    pub mesh_provider: Option<String>,
    /// Labels that select the pods of a workload, in order of preference, separated by commas.
    #[arg(long, value_name = "NAMES", default_value = "app,name,app.kubernetes.io/name", help_heading = OPERATOR)]
    pub selector_labels: String,
    /// Prefixes of labels and annotations that the primary takes over, separated by commas; `*` for all.
    #[arg(long, value_name = "PREFIXES", default_value = "", hide_default_value = true, help_heading = OPERATOR)]
    pub include_label_prefix: String,
    /// Refuse canaries that use metric templates or alert providers of another namespace.
    #[arg(long, help_heading = OPERATOR)]
    pub no_cross_namespace_refs: bool,
    /// What a missing answer of a metrics backend does.
    #[arg(long, value_name = "POLICY", value_enum, default_value = "hold", help_heading = OPERATOR)]
    pub metrics_errors: MetricsErrors,
    /// With --metrics-errors=hold: missing answers fail checks after the backend was away this long.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration, help_heading = OPERATOR)]
    pub metrics_outage_limit: Duration,
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a seed is a whole number from 0 to {}", u64::MAX))
}

const OPERATOR: &str = "Operator, as for aviary run";

/// Format of `aviary simulate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SimulateOutput {
    /// A timeline and a verdict, for people.
    Table,
    /// One JSON document.
    Json,
}
