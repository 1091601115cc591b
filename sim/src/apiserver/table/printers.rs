//! Which columns each built-in kind has (`pkg/printers/internalversion/printers.go` of Kubernetes 1.36).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cluster_kinds, event, extensions, networking, pod, workloads};

/// Columns and rows of a built-in kind.
#[derive(Debug)]
pub(super) struct Printer {
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    pub(super) cells: fn(&Value, Timestamp) -> Vec<Value>,
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    column_type: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: u8,
}

impl Printer {
    pub(super) fn headers(&self) -> Value {
        self.columns
            .iter()
            .map(|column| {
                // The format tells clients which column names the object.
                let format = if column.name == "Name" { "name" } else { "" };
                json!({
                    "name": column.name, "type": column.column_type, "format": format, "description": "",
                    "priority": column.priority,
                })
            })
            .collect()
    }
}

/// The printer of a kind: its own, or name and creation time.
pub(super) fn printer(group: &str, kind: &str) -> &'static Printer {
    PRINTERS.iter().find(|printer| printer.group == group && printer.kind == kind).unwrap_or(&DEFAULT)
}

const fn text(name: &'static str) -> Column {
    Column { name, column_type: "string", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, column_type: "string", priority: 1 }
}

const fn typed(name: &'static str, column_type: &'static str) -> Column {
    Column { name, column_type, priority: 0 }
}

const fn count(name: &'static str) -> Column {
    typed(name, "integer")
}

const fn printer_of(
    group: &'static str,
    kind: &'static str,
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
) -> Printer {
    Printer { group, kind, columns, cells }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");

static DEFAULT: Printer = printer_of("", "", &[NAME, typed("Created At", "date")], cluster_kinds::name_and_creation);

#[rustfmt::skip]
static PRINTERS: &[Printer] = &[
    printer_of("", "Pod", &[NAME, text("Ready"), text("Status"), text("Restarts"), AGE, wide("IP"), wide("Node"),
        wide("Nominated Node"), wide("Readiness Gates")], pod::cells),
    printer_of("", "Service", &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE,
        wide("Selector")], networking::service),
    printer_of("", "ConfigMap", &[NAME, text("Data"), AGE], cluster_kinds::config_map),
    printer_of("", "Secret", &[NAME, text("Type"), text("Data"), AGE], cluster_kinds::secret),
    printer_of("", "Endpoints", &[NAME, text("Endpoints"), AGE], networking::endpoints),
    printer_of("", "Event", &[text("Last Seen"), text("Type"), text("Reason"), text("Object"), wide("Subobject"), wide("Source"),
        text("Message"), wide("First Seen"), wide("Count"), wide("Name")], event::cells),
    printer_of("", "Namespace", &[NAME, text("Status"), AGE], cluster_kinds::namespace),
    printer_of("", "Node", &[NAME, text("Status"), text("Roles"), AGE, text("Version"), wide("Internal-IP"), wide("External-IP"),
        wide("OS-Image"), wide("Kernel-Version"), wide("Container-Runtime")], cluster_kinds::node),
    printer_of("", "ComponentStatus", &[NAME, text("Status"), text("Message"), text("Error")], cluster_kinds::component_status),
    printer_of("", "ServiceAccount", &[NAME, AGE], cluster_kinds::name_and_age),
    printer_of("", "ResourceQuota", &[NAME, text("Request"), text("Limit"), AGE], cluster_kinds::resource_quota),
    printer_of("", "PersistentVolumeClaim", &[NAME, text("Status"), text("Volume"), text("Capacity"), text("Access Modes"),
        text("StorageClass"), text("VolumeAttributesClass"), AGE, wide("VolumeMode")], cluster_kinds::volume_claim),
    printer_of("", "PersistentVolume", &[NAME, text("Capacity"), text("Access Modes"), text("Reclaim Policy"), text("Status"),
        text("Claim"), text("StorageClass"), text("VolumeAttributesClass"), text("Reason"), AGE, wide("VolumeMode")],
        cluster_kinds::volume),
    printer_of("", "ReplicationController", &[NAME, count("Desired"), count("Current"), count("Ready"), AGE, wide("Containers"),
        wide("Images"), wide("Selector")], workloads::replication_controller),
    printer_of("", "PodTemplate", &[NAME, text("Containers"), text("Images"), text("Pod Labels")], extensions::pod_template),
    printer_of("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", &[NAME, count("Webhooks"), AGE],
        extensions::webhook_configuration),
    printer_of("admissionregistration.k8s.io", "MutatingWebhookConfiguration", &[NAME, count("Webhooks"), AGE],
        extensions::webhook_configuration),
    printer_of("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &[NAME, count("Validations"), text("ParamKind"), AGE],
        extensions::validating_policy),
    printer_of("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", &[NAME, text("PolicyName"), text("ParamRef"), AGE],
        extensions::policy_binding),
    printer_of("admissionregistration.k8s.io", "MutatingAdmissionPolicy", &[NAME, count("Mutations"), text("ParamKind"), AGE],
        extensions::mutating_policy),
    printer_of("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", &[NAME, text("PolicyName"), text("ParamRef"), AGE],
        extensions::policy_binding),
    printer_of("apiregistration.k8s.io", "APIService", &[NAME, text("Service"), text("Available"), AGE], extensions::api_service),
    printer_of("certificates.k8s.io", "CertificateSigningRequest", &[NAME, AGE, text("SignerName"), text("Requestor"),
        text("RequestedDuration"), text("Condition")], extensions::signing_request),
    printer_of("apps", "Deployment", &[NAME, text("Ready"), text("Up-to-date"), text("Available"), AGE, wide("Containers"),
        wide("Images"), wide("Selector")], workloads::deployment),
    printer_of("apps", "ReplicaSet", &[NAME, count("Desired"), count("Current"), count("Ready"), AGE, wide("Containers"),
        wide("Images"), wide("Selector")], workloads::replica_set),
    printer_of("apps", "DaemonSet", &[NAME, count("Desired"), count("Current"), count("Ready"), count("Up-to-date"),
        count("Available"), text("Node Selector"), AGE, wide("Containers"), wide("Images"), wide("Selector")],
        workloads::daemon_set),
    printer_of("apps", "StatefulSet", &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")], workloads::stateful_set),
    printer_of("apps", "ControllerRevision", &[NAME, text("Controller"), text("Revision"), AGE], workloads::controller_revision),
    printer_of("autoscaling", "HorizontalPodAutoscaler", &[NAME, text("Reference"), text("Targets"), text("MinPods"),
        text("MaxPods"), text("Replicas"), AGE], workloads::autoscaler),
    printer_of("autoscaling", "Scale", &[NAME, count("Desired"), count("Available"), AGE], workloads::scale),
    printer_of("batch", "Job", &[NAME, text("Status"), text("Completions"), text("Duration"), AGE, wide("Containers"),
        wide("Images"), wide("Selector")], workloads::job),
    printer_of("batch", "CronJob", &[NAME, text("Schedule"), text("Timezone"), typed("Suspend", "boolean"), count("Active"),
        text("Last Schedule"), AGE, wide("Containers"), wide("Images"), wide("Selector")], workloads::cron_job),
    printer_of("policy", "PodDisruptionBudget", &[NAME, text("Min Available"), text("Max Unavailable"),
        count("Allowed Disruptions"), AGE], workloads::disruption_budget),
    printer_of("coordination.k8s.io", "Lease", &[NAME, text("Holder"), AGE], cluster_kinds::lease),
    printer_of("discovery.k8s.io", "EndpointSlice", &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
        networking::endpoint_slice),
    printer_of("networking.k8s.io", "Ingress", &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
        networking::ingress),
    printer_of("networking.k8s.io", "IngressClass", &[NAME, text("Controller"), text("Parameters"), AGE],
        networking::ingress_class),
    printer_of("networking.k8s.io", "NetworkPolicy", &[NAME, text("Pod-Selector"), AGE], networking::network_policy),
    printer_of("rbac.authorization.k8s.io", "RoleBinding", &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"),
        wide("ServiceAccounts")], cluster_kinds::role_binding),
    printer_of("rbac.authorization.k8s.io", "ClusterRoleBinding", &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"),
        wide("ServiceAccounts")], cluster_kinds::role_binding),
    printer_of("scheduling.k8s.io", "PriorityClass", &[NAME, count("Value"), typed("Global-Default", "boolean"), AGE,
        text("PreemptionPolicy")], cluster_kinds::priority_class),
    printer_of("storage.k8s.io", "StorageClass", &[NAME, text("Provisioner"), text("ReclaimPolicy"), text("VolumeBindingMode"),
        text("AllowVolumeExpansion"), AGE], cluster_kinds::storage_class),
];

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{DEFAULT, PRINTERS};

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let empty = json!({"metadata": {"name": "x"}});
        for printer in PRINTERS.iter().chain([&DEFAULT]) {
            let cells = (printer.cells)(&empty, Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), printer.columns.len(), "{}", printer.kind);
        }
    }
}
