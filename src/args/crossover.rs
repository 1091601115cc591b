//! Flags of `aviary crossover`: those of Crossover.

use std::path::PathBuf;
use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use clap::Args;

const CROSSOVER_HELP: &str = "\
Stands in for Crossover beside an Envoy that reads its routes from files: as an init container with --onetime, and as a \
sidecar. Each key of a ConfigMap is a file. In the virtual host that a TrafficSplit is for, the weights of the clusters that \
are named like its backends become those of the split. Files are renamed into place, so Envoy never sees half of one.

A virtual host is that of a split if it is named like spec.service or like the TrafficSplit, or has spec.service among its \
domains; a dot in a backend's name may be an underscore in the cluster's. Weights are numbers or quantities (10, \"10\", \
\"100m\"). A split without a usable weight, or one that is gone, leaves the weights in force; weights that are all 0 are never \
written. `version_info` of a file is a digest of what the file says, and shows as `version_text` among Envoy's statistics.

No error of the API server ends it: the files stay as they are, and it tries again. Nothing is asked while nothing changes.

With one --configmap, all --trafficsplit belong to it; with more, as many of both, pair by pair.

Examples:
  aviary crossover --configmap=envoy-xds --trafficsplit=podinfo --onetime
  aviary crossover --configmap=envoy-xds --trafficsplit=podinfo --trafficsplit=frontend
  # What would be written, from a laptop
  aviary crossover --kubeconfig=$HOME/.kube/config --namespace=test --configmap=envoy-xds --trafficsplit=podinfo --dry-run";

/// Arguments of `aviary crossover`.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_long_help = CROSSOVER_HELP)]
pub struct CrossoverArgs {
    /// Address of the API server. Empty: as the pod's environment says.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub apiserver: String,
    /// ConfigMap whose keys are files; may be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    pub configmap: Vec<String>,
    /// TrafficSplit whose weights are written into the files; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub trafficsplit: Vec<String>,
    /// Version of the TrafficSplits.
    #[arg(long, value_name = "VERSION", default_value = "v1alpha2",
        value_parser = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"])]
    pub trafficsplit_api_version: String,
    /// Namespace of both. Default: $NS, or else $POD_NAMESPACE.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub namespace: String,
    /// Write the files once and exit: what an init container does.
    #[arg(long)]
    pub onetime: bool,
    /// Print the files and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Directory of the files: DIR/current/KEY.
    #[arg(long, value_name = "DIR", default_value = "/srv/runtime")]
    pub output_dir: PathBuf,
    /// File with the token of the service account.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token")]
    pub token_file: PathBuf,
    /// Do not verify the API server's certificate.
    #[arg(long)]
    pub insecure: bool,
    /// A kubeconfig instead of the service account.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub kubeconfig: String,
    /// Accepted: TrafficSplits are followed wherever one is named.
    #[arg(long)]
    pub smi: bool,
    /// Accepted: everything is always watched.
    #[arg(long)]
    pub watch: bool,
    /// Accepted: nothing is polled.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub sync_interval: Duration,
}

impl CrossoverArgs {
    /// The environment's namespace, where no flag names one.
    pub(super) fn take_environment(&mut self, environment: impl Fn(&str) -> Option<String>) {
        let found = ["NS", "POD_NAMESPACE"].into_iter().filter_map(environment).find(|name| !name.is_empty());
        if let (true, Some(namespace)) = (self.namespace.is_empty(), found) {
            self.namespace = namespace;
        }
    }

    /// Refuses what no file could be written for.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.namespace.is_empty() {
            return Err("--namespace is missing: name the namespace of the ConfigMaps, or set POD_NAMESPACE".to_owned());
        }
        let (configmaps, splits) = (self.configmap.len(), self.trafficsplit.len());
        if configmaps > 1 && splits > 0 && splits != configmaps {
            return Err(format!(
                "{configmaps} times --configmap and {splits} times --trafficsplit: pass one --configmap, or as many of both"
            ));
        }
        Ok(())
    }

    /// Each ConfigMap with the TrafficSplits that go into it.
    pub fn pairs(&self) -> Vec<(String, Vec<String>)> {
        let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
        for name in &self.configmap {
            if !pairs.iter().any(|(known, _)| known == name) {
                pairs.push((name.clone(), Vec::new()));
            }
        }
        for (index, split) in self.trafficsplit.iter().enumerate() {
            let configmap = self.configmap.get(index).or(self.configmap.first());
            let pair = pairs.iter_mut().find(|(name, _)| Some(name) == configmap);
            if let Some((_, splits)) = pair.filter(|(_, splits)| !splits.contains(split)) {
                splits.push(split.clone());
            }
        }
        pairs
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_go_duration(text).map_err(|error| error.to_string())
}
