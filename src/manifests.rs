//! The operator as plain manifests, for those without Helm. They are the objects that charts/aviary renders, and a test compares
//! them; the permissions are those of [`crate::rbac`], the flags those of [`RunArgs`].

use serde_json::{Map, Value, json};

use crate::args::{GivenFlags, ManifestsArgs, RbacArgs, RunArgs};
use crate::rbac;

#[cfg(test)]
mod chart;
#[cfg(test)]
mod tests;

/// The manifests as text; or else what is wrong with the flags.
///
/// # Errors
/// They cannot be written, which the tests would show.
pub fn render(args: &ManifestsArgs) -> anyhow::Result<Result<String, clap::Error>> {
    match args.run_flags() {
        Ok(flags) => Ok(Ok(rbac::render_objects(&objects(args, &flags), args.output)?)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Everything that an installation needs, in an order in which it can be applied.
pub fn objects(args: &ManifestsArgs, flags: &GivenFlags) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": args.install_namespace, "labels": labels(args)},
    })];
    if !args.no_crds {
        objects.extend(aviary_crds::schema::all_crds());
    }
    objects.extend(rbac::manifests(&rights(args, flags)).into_iter().map(|mut object| {
        object["metadata"]["labels"] = labels(args);
        object
    }));
    let (arguments, secrets) = arguments(args, flags);
    if !secrets.is_empty() {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata(args), "type": "Opaque", "stringData": secrets,
        }));
    }
    objects.push(deployment(args, flags, &arguments, !secrets.is_empty()));
    if args.replicas > 1 {
        objects.push(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(args),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels(args)}},
        }));
    }
    objects
}

fn labels(args: &ManifestsArgs) -> Value {
    json!({"app.kubernetes.io/name": "aviary", "app.kubernetes.io/instance": args.name})
}

fn metadata(args: &ManifestsArgs) -> Value {
    json!({"name": args.name, "namespace": args.install_namespace, "labels": labels(args)})
}

fn rights(args: &ManifestsArgs, flags: &GivenFlags) -> RbacArgs {
    RbacArgs {
        namespace: flags.run.namespace.clone(),
        // A canary may name any provider, whatever the default is.
        mesh_provider: Vec::new(),
        enable_leader_election: flags.run.enable_leader_election,
        leader_election_namespace: election_namespace(args, flags),
        service_account: args.name.clone(),
        service_account_namespace: args.install_namespace.clone(),
        output: args.output,
    }
}

/// As in Flagger's chart: where the operator runs, unless it is said.
fn election_namespace(args: &ManifestsArgs, flags: &GivenFlags) -> String {
    let given = flags.given.iter().any(|(name, _)| name == LEASE_NAMESPACE);
    if given { flags.run.leader_election_namespace.clone() } else { args.install_namespace.clone() }
}

const LEASE_NAMESPACE: &str = "leader-election-namespace";

/// The container's arguments, and the environment variables that are kept in a Secret.
fn arguments(args: &ManifestsArgs, flags: &GivenFlags) -> (Vec<String>, Map<String, Value>) {
    let (mut arguments, mut secrets) = (vec!["run".to_owned()], Map::new());
    let mut given = flags.given.clone();
    let mut add = |name: &str, value: String| {
        if !given.iter().any(|(given, _)| given == name) {
            given.push((name.to_owned(), value));
        }
    };
    add("log-level", "info".to_owned());
    if flags.run.enable_leader_election {
        add(LEASE_NAMESPACE, election_namespace(args, flags));
    }
    for (name, value) in given {
        match RunArgs::SECRETS.iter().find(|(flag, _)| *flag == name) {
            Some((_, variable)) => drop(secrets.insert((*variable).to_owned(), value.into())),
            None => arguments.push(format!("--{name}={value}")),
        }
    }
    (arguments, secrets)
}

fn deployment(args: &ManifestsArgs, flags: &GivenFlags, arguments: &[String], has_secrets: bool) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 5});
    let mut container = json!({
        "name": "aviary",
        "image": args.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": flags.run.port, "protocol": "TCP"}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        // Flagger's; docs/performance.md has figures.
        "resources": {"limits": {"cpu": "1000m", "memory": "512Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": 10001,
            "runAsNonRoot": true,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if has_secrets {
        container["envFrom"] = json!([{"secretRef": {"name": args.name}}]);
    }
    let anti_affinity = json!({
        "weight": 100,
        "podAffinityTerm": {"labelSelector": {"matchLabels": labels(args)}, "topologyKey": "kubernetes.io/hostname"},
    });
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(args),
        "spec": {
            "replicas": args.replicas,
            "selector": {"matchLabels": labels(args)},
            "template": {
                "metadata": {
                    "labels": labels(args),
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": flags.run.port.to_string(),
                        "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
                        "linkerd.io/inject": "enabled",
                    },
                },
                "spec": {
                    "serviceAccountName": args.name,
                    "containers": [container],
                    "affinity": {
                        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [anti_affinity]},
                    },
                },
            },
        },
    });
    if !flags.run.enable_leader_election {
        // Two that do not elect a leader must not run at once.
        object["spec"]["strategy"] = json!({"type": "Recreate"});
    }
    object
}
