//! What Kubernetes puts into every namespace, and the service of the API server itself.

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{is_deleting, whole_second};
use super::node::NODE_NAME;
use super::queue::ObjectName;
use crate::store::{GroupKind, kinds};

/// Where the API server's service points. Nobody listens there: the embedded cluster has no pod network.
const API_SERVER_ADDRESS: &str = "192.168.0.254";
const API_SERVER_PORT: u16 = 6443;
/// The first address of the service range, below those that are given out.
const API_SERVICE_ADDRESS: &str = "10.96.0.1";

/// What stands where a real cluster has the certificate of its authority.
const NO_CERTIFICATE: &str = "# The embedded cluster is served without TLS: there is no certificate authority.\n";

const DEFAULT_ACCOUNT: &str = "default";
const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";

/// Whether an object of this name comes back when it is deleted.
pub(super) fn is_kept(name: &str) -> bool {
    name == DEFAULT_ACCOUNT || name == ROOT_CERTIFICATE
}

/// Whether it is the service of the API server, which makes it anew when it is gone.
pub(super) fn is_api_service(name: &ObjectName) -> bool {
    &*name.namespace == "default" && &*name.name == "kubernetes"
}

impl Engine {
    /// Gives a namespace its `default` service account and the ConfigMap with the certificate authority.
    pub(super) fn reconcile_namespace(&mut self, name: &ObjectName) {
        let Some(namespace) = self.store.get(&kinds::NAMESPACE, "", &name.name) else {
            return;
        };
        if is_deleting(&namespace) {
            return;
        }
        self.ensure(&kinds::SERVICE_ACCOUNT, json!({"metadata": {"name": DEFAULT_ACCOUNT, "namespace": *name.name}}));
        self.ensure(
            &kinds::CONFIG_MAP,
            json!({
                "metadata": {
                    "name": ROOT_CERTIFICATE, "namespace": *name.name,
                    "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the \
                        kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
                        No other usage is guaranteed across distributions of Kubernetes clusters."},
                },
                "data": {"ca.crt": NO_CERTIFICATE},
            }),
        );
    }

    /// Service, endpoints and endpoint slice `default/kubernetes`, and the lease by which the node says that it lives.
    pub(super) fn ensure_api_service(&self) {
        let metadata = json!({"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}});
        self.ensure(
            &kinds::SERVICE,
            json!({
                "metadata": metadata,
                "spec": {
                    "type": "ClusterIP", "clusterIP": API_SERVICE_ADDRESS, "clusterIPs": [API_SERVICE_ADDRESS],
                    "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                    "sessionAffinity": "None",
                    "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": API_SERVER_PORT}],
                },
                "status": {"loadBalancer": {}},
            }),
        );
        let port = json!({"name": "https", "protocol": "TCP", "port": API_SERVER_PORT});
        self.ensure(
            &kinds::ENDPOINTS,
            json!({
                "metadata": {"name": "kubernetes", "namespace": "default",
                    "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [{"addresses": [{"ip": API_SERVER_ADDRESS}], "ports": [port]}],
            }),
        );
        self.ensure(
            &kinds::ENDPOINT_SLICE,
            json!({
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4", "ports": [port],
                "endpoints": [{"addresses": [API_SERVER_ADDRESS], "conditions": {"ready": true}}],
            }),
        );
        let now = whole_second(self.clock.now());
        // A kubelet renews its lease every ten seconds; here that is done when somebody looks (`apiserver/heartbeats.rs`).
        self.ensure(
            &kinds::LEASE,
            json!({
                "metadata": {"name": NODE_NAME, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": NODE_NAME, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
            }),
        );
    }

    fn ensure(&self, kind: &GroupKind, object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        if self.store.get(kind, text("namespace"), text("name")).is_some() {
            return;
        }
        if let Err(error) = self.store.create(kind, object) {
            tracing::warn!(%kind, %error, "failed to create an object that every cluster has");
        }
    }
}
