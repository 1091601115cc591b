//! Group-kinds that the embedded cluster knows by name.

use std::borrow::Cow;

/// A kind without its version: the key of everything that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Kind in its singular, capitalised form.
    pub kind: Cow<'static, str>,
}

impl GroupKind {
    /// A group-kind known at compile time.
    #[must_use]
    pub const fn known(group: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), kind: Cow::Borrowed(kind) }
    }

    /// A group-kind made at run time. One that is known at compile time shares the constant's names, so that cloning it is
    /// free.
    #[must_use]
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        let made = Self { group: Cow::Owned(group.into()), kind: Cow::Owned(kind.into()) };
        match KNOWN.iter().find(|known| **known == made) {
            Some(known) => known.clone(),
            None => made,
        }
    }
}

impl std::fmt::Display for GroupKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() {
            formatter.write_str(&self.kind)
        } else {
            write!(formatter, "{}.{}", self.kind, self.group)
        }
    }
}

macro_rules! kinds {
    ($($name:ident = $group:literal, $kind:literal;)*) => {
        $(
            #[doc = concat!("`", $kind, "` of group `", $group, "`.")]
            pub const $name: GroupKind = GroupKind::known($group, $kind);
        )*

        const KNOWN: &[GroupKind] = &[$($name),*];
    };
}

kinds! {
    NAMESPACE = "", "Namespace";
    POD = "", "Pod";
    SERVICE = "", "Service";
    CONFIG_MAP = "", "ConfigMap";
    SECRET = "", "Secret";
    EVENT = "", "Event";
    ENDPOINTS = "", "Endpoints";
    SERVICE_ACCOUNT = "", "ServiceAccount";
    RESOURCE_QUOTA = "", "ResourceQuota";
    PERSISTENT_VOLUME_CLAIM = "", "PersistentVolumeClaim";
    NODE = "", "Node";
    DEPLOYMENT = "apps", "Deployment";
    REPLICA_SET = "apps", "ReplicaSet";
    DAEMON_SET = "apps", "DaemonSet";
    STATEFUL_SET = "apps", "StatefulSet";
    CONTROLLER_REVISION = "apps", "ControllerRevision";
    HPA = "autoscaling", "HorizontalPodAutoscaler";
    SCALED_OBJECT = "keda.sh", "ScaledObject";
    LEASE = "coordination.k8s.io", "Lease";
    ENDPOINT_SLICE = "discovery.k8s.io", "EndpointSlice";
    CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io", "CustomResourceDefinition";
    POD_DISRUPTION_BUDGET = "policy", "PodDisruptionBudget";
    JOB = "batch", "Job";
    CRON_JOB = "batch", "CronJob";
    VIRTUAL_SERVICE = "networking.istio.io", "VirtualService";
    DESTINATION_RULE = "networking.istio.io", "DestinationRule";
    GATEWAY = "networking.istio.io", "Gateway";
    TRAFFIC_SPLIT = "split.smi-spec.io", "TrafficSplit";
    CANARY = "flagger.app", "Canary";
    METRIC_TEMPLATE = "flagger.app", "MetricTemplate";
    ALERT_PROVIDER = "flagger.app", "AlertProvider";
}
