//! What the operator may do: one table, from which manifests, documentation and tests are made.

use aviary_providers::{ObjectKind, kinds};
use serde_json::{Value, json};

use crate::args::{RbacArgs, RbacOutput};
use crate::leader::LEASE_NAME;

/// Who needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Every operator.
    Core,
    /// Canaries of this provider, or of one that has a version after it: `smi` is for `smi:v1alpha1`.
    Provider(&'static str),
    /// `--enable-leader-election`; in the namespace of the Lease.
    LeaderElection,
}

/// Leave to do some things with one resource.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Plural, with its subresource: `canaries/status`.
    pub resource: &'static str,
    /// Verbs of RBAC.
    pub verbs: &'static [&'static str],
    /// The only object, where there is only one.
    pub name: Option<&'static str>,
    /// Who needs it.
    pub feature: Feature,
    /// What for.
    pub why: &'static str,
}

/// Objects that are only read: listed once and watched.
const READ: &[&str] = &["list", "watch"];
/// Objects that are written, too. They are read one by one after a conflict, and patched with the version that was seen.
/// Nothing is ever deleted: what Aviary makes belongs to its Canary and goes with it.
const WRITE: &[&str] = &["get", "list", "watch", "create", "patch"];

const fn core(kind: &'static ObjectKind, verbs: &'static [&'static str], why: &'static str) -> Permission {
    Permission { group: kind.group, resource: kind.plural, verbs, name: None, feature: Feature::Core, why }
}

const fn istio(kind: &'static ObjectKind, why: &'static str) -> Permission {
    Permission { feature: Feature::Provider("istio"), ..core(kind, WRITE, why) }
}

/// Every permission that the operator asks for.
pub static PERMISSIONS: &[Permission] = &[
    core(
        &kinds::CANARY,
        &["get", "list", "watch", "patch"],
        "the canaries themselves; patched for the finalizer of revertOnDeletion only",
    ),
    Permission {
        resource: "canaries/status",
        ..core(&kinds::CANARY, &["update"], "phase, weights and conditions of a canary")
    },
    Permission {
        resource: "canaries/finalizers",
        ..core(
            &kinds::CANARY,
            &["update"],
            "owner references that block deletion, where the admission plugin OwnerReferencesPermissionEnforcement is on",
        )
    },
    core(&kinds::ROLLOUT, &["get", "list", "watch"], "the same of Steerer, where the cluster has them"),
    Permission {
        resource: "rollouts/status",
        ..core(&kinds::ROLLOUT, &["update"], "phase, weights and conditions of a rollout")
    },
    core(
        &kinds::BIRD_WATCH,
        &["get", "list", "watch", "delete"],
        "the BirdWatches themselves; one is deleted where delete_on_success asks for that",
    ),
    Permission {
        resource: "birdwatches/status",
        ..core(&kinds::BIRD_WATCH, &["update"], "phase, weight and baseline of a BirdWatch")
    },
    core(&kinds::METRIC_TEMPLATE, READ, "queries that canaries refer to"),
    core(&kinds::ALERT_PROVIDER, READ, "channels that canaries refer to"),
    core(&kinds::DEPLOYMENT, WRITE, "targets are scaled, primaries are created and updated"),
    core(&kinds::DAEMON_SET, WRITE, "the same for targets of this kind"),
    core(&kinds::SERVICE, WRITE, "the services of a canary: apex, primary and canary"),
    core(&kinds::CONFIG_MAP, WRITE, "configs of the target are tracked, and copied for the primary"),
    core(
        &kinds::SECRET,
        WRITE,
        "the same for secrets; credentials of metric templates and addresses of alert providers",
    ),
    core(&kinds::HORIZONTAL_POD_AUTOSCALER, WRITE, "the autoscaler of the target, and its copy for the primary"),
    core(&kinds::SCALED_OBJECT, WRITE, "the same for KEDA; the target's is paused while it has no pods"),
    Permission {
        group: "",
        resource: "events",
        verbs: &["create", "patch"],
        name: None,
        feature: Feature::Core,
        why: "what happens to a canary is told in events of its namespace; repeated ones are counted",
    },
    istio(&kinds::VIRTUAL_SERVICE, "the routes of a canary"),
    istio(&kinds::DESTINATION_RULE, "traffic policies of primary and canary"),
    Permission {
        feature: Feature::Provider("smi"),
        ..core(&kinds::TRAFFIC_SPLIT_V1ALPHA1, WRITE, "the routes of a canary, in whatever version")
    },
    Permission {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create"],
        name: None,
        feature: Feature::LeaderElection,
        why: "the Lease of the leader, which the first replica creates; creation cannot be limited to a name",
    },
    Permission {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "list", "watch", "update"],
        name: Some(LEASE_NAME),
        feature: Feature::LeaderElection,
        why: "renewed by the leader, watched by the others",
    },
    Permission {
        group: "",
        resource: "events",
        verbs: &["create"],
        name: None,
        feature: Feature::LeaderElection,
        why: "who became leader is told in an event of the Lease",
    },
];

/// Whether a provider needs what [`Feature::Provider`] names.
pub fn needs(provider: &str, feature: &str) -> bool {
    provider == feature || provider.strip_prefix(feature).is_some_and(|rest| rest.starts_with(':'))
}

/// Whether the table holds leave for a call, as the API server's log names it.
pub fn is_granted(verb: &str, group: Option<&str>, resource: &str) -> bool {
    PERMISSIONS.iter().any(|permission| {
        permission.resource == resource
            && permission.verbs.contains(&verb)
            && group.is_none_or(|group| group == permission.group)
    })
}

/// The objects that grant the rights, ready to be applied.
pub fn manifests(args: &RbacArgs) -> Vec<Value> {
    let is_wanted = |permission: &Permission| match permission.feature {
        Feature::Core => true,
        Feature::Provider(name) => {
            args.mesh_provider.is_empty() || args.mesh_provider.iter().any(|wanted| needs(wanted, name))
        }
        Feature::LeaderElection => false,
    };
    let mut rules: Vec<Value> = PERMISSIONS.iter().filter(|permission| is_wanted(permission)).map(rule).collect();
    let (name, account_namespace) = (&args.service_account, &args.service_account_namespace);
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, Some(account_namespace)),
    })];
    let namespaces = args.namespaces();
    if namespaces.is_empty() {
        // Asked for once at the start; granted to everybody by default (system:discovery), except where it was taken away.
        rules.push(json!({"nonResourceURLs": ["/version"], "verbs": ["get"]}));
        objects.extend(role(args, name, None, &rules));
    }
    for namespace in &namespaces {
        objects.extend(role(args, name, Some(namespace), &rules));
    }
    if args.enable_leader_election {
        let lease_namespace = namespaces.first().unwrap_or(&args.leader_election_namespace);
        let rules: Vec<Value> =
            PERMISSIONS.iter().filter(|permission| permission.feature == Feature::LeaderElection).map(rule).collect();
        objects.extend(role(args, &format!("{name}-leader-election"), Some(lease_namespace), &rules));
    }
    objects
}

/// The rule of a role.
pub fn rule(permission: &Permission) -> Value {
    let mut rule = json!({
        "apiGroups": [permission.group],
        "resources": [permission.resource],
        "verbs": permission.verbs,
    });
    if let Some(name) = permission.name {
        rule["resourceNames"] = json!([name]);
    }
    rule
}

/// A role and its binding, in a namespace or in the whole cluster.
fn role(args: &RbacArgs, name: &str, namespace: Option<&String>, rules: &[Value]) -> [Value; 2] {
    const API: &str = "rbac.authorization.k8s.io";
    let prefix = if namespace.is_some() { "" } else { "Cluster" };
    let kind = format!("{prefix}Role");
    [
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": kind,
            "metadata": metadata(name, namespace),
            "rules": rules,
        }),
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": format!("{prefix}RoleBinding"),
            "metadata": metadata(name, namespace),
            "roleRef": {"apiGroup": API, "kind": kind, "name": name},
            "subjects": [{
                "kind": "ServiceAccount",
                "name": args.service_account,
                "namespace": args.service_account_namespace,
            }],
        }),
    ]
}

fn metadata(name: &str, namespace: Option<&String>) -> Value {
    let mut metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "aviary"}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// The manifests as text.
///
/// # Errors
/// They cannot be written, which the tests would show.
pub fn render(args: &RbacArgs) -> anyhow::Result<String> {
    render_objects(&manifests(args), args.output)
}

/// Objects as text, ready to be applied.
pub(crate) fn render_objects(objects: &[Value], output: RbacOutput) -> anyhow::Result<String> {
    match output {
        RbacOutput::Json => Ok(format!("{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": objects}))),
        RbacOutput::Yaml => {
            let documents: Vec<String> = objects.iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
            Ok(documents.join("---\n"))
        }
    }
}

#[cfg(test)]
mod tests;
