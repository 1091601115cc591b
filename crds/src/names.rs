//! Names that form the contract with users, other controllers and clusters that ran Flagger before.

/// API group of all resources here.
pub const GROUP: &str = "flagger.app";
/// The version that is stored. Canaries are served as [`v1alpha1`](crate::v1alpha1) as well.
pub const VERSION: &str = "v1beta1";
/// `apiVersion` of all resources here.
pub const API_VERSION: &str = "flagger.app/v1beta1";

/// Finalizer of canaries with `revertOnDeletion`.
pub const FINALIZER: &str = "finalizer.flagger.app";
/// Suffix of the primary workload, its service and its copies of tracked configs.
pub const PRIMARY_SUFFIX: &str = "-primary";
/// Suffix of the canary service.
pub const CANARY_SUFFIX: &str = "-canary";
/// Type of the one condition of a canary. `kubectl wait canary/x --for=condition=promoted` is built on it.
pub const PROMOTED_CONDITION: &str = "Promoted";

/// Pod template annotation of a primary; a new value restarts its pods.
pub const POD_ID_ANNOTATION: &str = "flagger-id";
/// Annotation of a ConfigMap or Secret; `disabled` keeps it from being tracked.
pub const CONFIG_TRACKING_ANNOTATION: &str = "flagger.app/config-tracking";
/// Node selector key (value `true`) that keeps a DaemonSet from running anywhere.
pub const SCALE_TO_ZERO_SELECTOR: &str = "flagger.app/scale-to-zero";
/// Annotation of a Knative Service that names the revision of the primary.
pub const PRIMARY_REVISION_ANNOTATION: &str = "flagger.app/primary-revision";
/// Annotation of a mesh object that was there before: its spec, put back when the canary is deleted.
pub const ORIGINAL_CONFIGURATION_ANNOTATION: &str = "flagger.kubernetes.io/original-configuration";
/// What `kubectl apply` leaves behind; read to put a service back.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// KEDA's switch for a fixed number of replicas.
pub const KEDA_PAUSED_REPLICAS_ANNOTATION: &str = "autoscaling.keda.sh/paused-replicas";
/// Label that KEDA puts on each of its objects: the object's own name, by which the metrics of its triggers are found.
pub const KEDA_NAME_LABEL: &str = "scaledobject.keda.sh/name";
/// Annotation (value `disabled`) that keeps Flux's kustomize controller away from a generated object.
pub const FLUX_RECONCILE_ANNOTATION: &str = "kustomize.toolkit.fluxcd.io/reconcile";
/// Annotation (value `disabled`) that keeps Flux's Helm drift detection away from a generated object.
pub const FLUX_DRIFT_ANNOTATION: &str = "helm.toolkit.fluxcd.io/driftDetection";

/// `apiVersion` of Knative Services, matched exactly.
pub const KNATIVE_API_VERSION: &str = "serving.knative.dev/v1";
/// Provider that Knative targets need.
pub const KNATIVE_PROVIDER: &str = "knative";

/// Name of the leader election Lease.
pub const LEADER_ELECTION_LEASE: &str = "flagger-leader-election";
/// Component named as the source of events.
pub const EVENT_SOURCE: &str = "flagger";
/// Reason of every event.
pub const EVENT_REASON: &str = "Synced";
