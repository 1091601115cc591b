//! Flags of `aviary rbac`.

use aviary_providers::traffic;
use clap::{Args, ValueEnum};

use super::comma_list;

const RBAC_HELP: &str = "\
The permissions are those that the operator uses and no others; docs/permissions.md says what each is for. Pass the flags with \
which the operator is run. With --namespace there is a Role in each namespace instead of a ClusterRole; the operator lists \
its own resource types at the start, so the CustomResourceDefinitions must be installed by somebody else.

Examples:
  aviary rbac | kubectl apply -f -
  # Only two namespaces, two replicas
  aviary rbac --namespace=team-a,team-b --enable-leader-election";

/// Arguments of `aviary rbac`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = RBAC_HELP)]
pub struct RbacArgs {
    /// Namespaces that the operator watches, separated by commas. Empty: all.
    #[arg(long, short, value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub namespace: String,
    /// Providers whose objects the operator may read and write, separated by commas. Default: all that are served.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = provider)]
    pub mesh_provider: Vec<String>,
    /// Grant what --enable-leader-election needs.
    #[arg(long)]
    pub enable_leader_election: bool,
    /// As for `aviary run`.
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    pub leader_election_namespace: String,
    /// Name of the ServiceAccount, and of what grants it its rights.
    #[arg(long, value_name = "NAME", default_value = "aviary")]
    pub service_account: String,
    /// Namespace of the ServiceAccount: the one in which the operator runs.
    #[arg(long, value_name = "NAME", default_value = "aviary-system")]
    pub service_account_namespace: String,
    /// Format of the output.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "yaml")]
    pub output: RbacOutput,
}

/// Format of `aviary rbac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RbacOutput {
    /// One document for each object.
    Yaml,
    /// One List.
    Json,
}

impl RbacArgs {
    /// Namespaces to watch; empty for all.
    pub fn namespaces(&self) -> Vec<String> {
        comma_list(&self.namespace).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    }
}

fn provider(name: &str) -> Result<String, String> {
    traffic::for_name(name).map(|provider| provider.name().to_owned()).map_err(|error| error.to_string())
}
