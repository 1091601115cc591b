//! Flags of `aviary manifests`.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches};

use super::{Cli, RbacOutput, RunArgs, go_flags};

const MANIFESTS_HELP: &str = "\
Whatever else is given is a flag of `aviary run`, in either notation; it is checked, and stands in the arguments of the \
Deployment. The permissions are those of `aviary rbac` for these flags: with --namespace there is a Role in each namespace \
instead of a ClusterRole. Tokens and addresses of webhooks are kept in a Secret. --log-level is info unless it is given, and the \
Lease of --enable-leader-election is in the install namespace.

Charts and these manifests are the same objects: a test compares them.

Examples:
  aviary manifests --image=registry.example.com/aviary:0.1.0 | kubectl apply --server-side -f -
  # Two replicas, for two namespaces
  aviary manifests --image=registry.example.com/aviary:0.1.0 --replicas=2 --enable-leader-election --namespace=team-a,team-b";

/// Arguments of `aviary manifests`.
///
/// Has no `Debug`: the flags may hold tokens and webhook addresses.
#[derive(Args, Clone)]
#[command(after_long_help = MANIFESTS_HELP)]
pub struct ManifestsArgs {
    /// Image of the operator. None is published: build one from the Containerfile.
    #[arg(long, value_name = "IMAGE", default_value = concat!("aviary:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// Namespace in which the operator runs; it is part of the manifests.
    #[arg(long, value_name = "NAME", default_value = "aviary-system")]
    pub install_namespace: String,
    /// Name of the Deployment, its ServiceAccount, and of what grants it its rights.
    #[arg(long, value_name = "NAME", default_value = "aviary")]
    pub name: String,
    /// Pods; more than one with --enable-leader-election.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// Leave the CustomResourceDefinitions out.
    #[arg(long)]
    pub no_crds: bool,
    /// Format of the output.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "yaml")]
    pub output: RbacOutput,
    /// Flags of `aviary run`.
    #[arg(value_name = "FLAGS OF RUN", trailing_var_arg = true, allow_hyphen_values = true)]
    pub flags: Vec<OsString>,
}

/// Flags of `aviary run` as they were given.
pub struct GivenFlags {
    /// What they mean, with defaults for all others.
    pub run: RunArgs,
    /// Name without dashes, and value, of each that was given; in the order of the help.
    pub given: Vec<(String, String)>,
}

/// Flags that make no sense in a pod, and what to do instead.
const NOT_IN_A_POD: [(&str, &str); 4] = [
    ("kubeconfig", "in a pod the operator uses its service account"),
    ("master", "in a pod the operator uses its service account"),
    ("kubeconfig-service-mesh", "the file is not in the pod; the chart mounts it from a Secret"),
    ("version", "it only prints the version"),
];

impl ManifestsArgs {
    /// The flags of `aviary run`. The environment of this process is not the operator's and does not count.
    ///
    /// # Errors
    /// As for `aviary run`; and for flags that make no sense in a pod.
    pub fn run_flags(&self) -> Result<GivenFlags, clap::Error> {
        let mut command = Cli::command();
        command.build();
        let line = ["aviary", "run"].map(OsString::from).into_iter().chain(self.flags.iter().cloned());
        let matches = command.try_get_matches_from_mut(go_flags::rewrite(line.collect(), &command))?;
        let mut verb = command.find_subcommand("run").cloned().unwrap_or(command);
        let Some(matches) = matches.subcommand_matches("run") else {
            return Err(verb.error(ErrorKind::UnknownArgument, "expected flags of `aviary run`"));
        };
        let run = RunArgs::from_arg_matches(matches)?;
        let mut given = Vec::new();
        for flag in verb.get_arguments().filter_map(clap::Arg::get_long) {
            let id = flag.replace('-', "_");
            let is_known = matches.try_contains_id(&id).unwrap_or(false);
            if !is_known || matches.value_source(&id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let values = matches.get_raw(&id).into_iter().flatten();
            given.extend(values.last().map(|value| (flag.to_owned(), value.to_string_lossy().into_owned())));
        }
        let mut problem = run.check().err();
        if let Some((flag, why)) = NOT_IN_A_POD.iter().find(|(flag, _)| given.iter().any(|(name, _)| name == flag)) {
            problem = Some(format!("leave --{flag} out: {why}"));
        }
        if self.replicas > 1 && !run.enable_leader_election {
            problem = Some(format!(
                "--replicas={}: add --enable-leader-election, two operators must not act at once",
                self.replicas
            ));
        }
        match problem {
            Some(problem) => Err(verb.error(ErrorKind::InvalidValue, problem)),
            None => Ok(GivenFlags { run, given }),
        }
    }
}
