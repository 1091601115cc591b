//! Kinds, keys and lookups of observed objects.

use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};

/// A kind of object that Aviary reads or writes, at the version it uses.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKind {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural resource name.
    pub plural: &'static str,
}

impl ObjectKind {
    /// `group/version`, or the version alone for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same for kube.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.into(),
            version: self.version.into(),
            api_version: self.api_version(),
            kind: self.kind.into(),
            plural: self.plural.into(),
        }
    }

    /// `deployments.apps`, or the plural alone for core.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `deployments.apps "podinfo" not found`, as the API server says it.
    pub fn not_found(&self, name: &str) -> String {
        format!("{} \"{name}\" not found", self.resource())
    }
}

/// The kinds in use.
pub mod kinds {
    use super::ObjectKind;

    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident = $group:literal $version:literal $kind:literal $plural:literal;)*) => {
            $($(#[$doc])* pub static $name: ObjectKind = ObjectKind { group: $group, version: $version, kind: $kind, plural: $plural };)*
        };
    }

    kinds! {
        /// flagger.app Canary.
        CANARY = "flagger.app" "v1beta1" "Canary" "canaries";
        /// flagger.app MetricTemplate.
        METRIC_TEMPLATE = "flagger.app" "v1beta1" "MetricTemplate" "metrictemplates";
        /// flagger.app AlertProvider.
        ALERT_PROVIDER = "flagger.app" "v1beta1" "AlertProvider" "alertproviders";
        /// otomato.link BirdWatch.
        BIRD_WATCH = "otomato.link" "v1alpha1" "BirdWatch" "birdwatches";
        /// apps Deployment.
        DEPLOYMENT = "apps" "v1" "Deployment" "deployments";
        /// apps DaemonSet.
        DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets";
        /// Steerer's Rollout.
        ROLLOUT = "apps.weave.works" "v1beta1" "Rollout" "rollouts";
        /// core Service.
        SERVICE = "" "v1" "Service" "services";
        /// core ConfigMap.
        CONFIG_MAP = "" "v1" "ConfigMap" "configmaps";
        /// core Secret.
        SECRET = "" "v1" "Secret" "secrets";
        /// autoscaling HorizontalPodAutoscaler.
        HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers";
        /// KEDA ScaledObject.
        SCALED_OBJECT = "keda.sh" "v1alpha1" "ScaledObject" "scaledobjects";
        /// Istio VirtualService.
        VIRTUAL_SERVICE = "networking.istio.io" "v1beta1" "VirtualService" "virtualservices";
        /// Istio DestinationRule.
        DESTINATION_RULE = "networking.istio.io" "v1beta1" "DestinationRule" "destinationrules";
        /// SMI TrafficSplit, whose weights are quantities. The API server converts nothing: each version is read as it is served.
        TRAFFIC_SPLIT_V1ALPHA1 = "split.smi-spec.io" "v1alpha1" "TrafficSplit" "trafficsplits";
        /// The same with numbers.
        TRAFFIC_SPLIT_V1ALPHA2 = "split.smi-spec.io" "v1alpha2" "TrafficSplit" "trafficsplits";
        /// The same with conditions, which Aviary leaves alone.
        TRAFFIC_SPLIT_V1ALPHA3 = "split.smi-spec.io" "v1alpha3" "TrafficSplit" "trafficsplits";
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind.
    pub kind: &'static ObjectKind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Observed objects, read from watch caches.
///
/// Implementations may record what was asked for: whatever a snapshot looked up, found or not, is what its canary must
/// be woken for.
pub trait Objects {
    /// All objects of a kind in a namespace, in order. For what is found by its labels: one look goes through all that is observed.
    fn list(&self, kind: &'static ObjectKind, namespace: &str) -> Vec<Arc<DynamicObject>>;

    /// The object, if it exists.
    fn get(&self, kind: &'static ObjectKind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>>;
}
