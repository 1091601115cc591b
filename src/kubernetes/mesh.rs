//! A mesh whose control plane is in another cluster than the workloads (`--kubeconfig-service-mesh`).

use aviary_providers::{ObjectKind, traffic};
use http::Request;
use kube::Client;
use kube::client::Body;

/// One client for both clusters: what is about objects of a mesh goes to the mesh's, everything else to that of the workloads.
pub fn joined(workloads: Client, mesh: Client) -> Client {
    let namespace = workloads.default_namespace().to_owned();
    let kinds: Vec<&'static ObjectKind> =
        traffic::ALL.iter().flat_map(|provider| provider.kept_with_the_mesh()).copied().collect();
    let send = tower::service_fn(move |request: Request<Body>| {
        let is_about_mesh = kinds.iter().any(|kind| is_about(request.uri().path(), kind));
        let client = if is_about_mesh { mesh.clone() } else { workloads.clone() };
        async move { client.send(request).await }
    });
    Client::new(send, namespace)
}

/// Whether a path of the Kubernetes API leads to objects of this kind.
fn is_about(path: &str, kind: &ObjectKind) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    if parts.next() != Some("apis") || parts.next() != Some(kind.group) {
        return false;
    }
    // The version says only how they are to be shown.
    let resource = match parts.nth(1) {
        Some("namespaces") => parts.nth(1),
        resource => resource,
    };
    resource == Some(kind.plural)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::convert::Infallible;

    use aviary_providers::kinds;
    use http::Response;
    use kube::Api;
    use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
    use serde_json::json;

    use super::*;

    /// An API server of which every object has this name.
    fn server(name: &'static str) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": name}});
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [object.clone()]});
            let body = if request.method() == "GET" { list } else { object };
            Ok::<_, Infallible>(Response::new(Body::from(body.to_string().into_bytes())))
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn objects_of_the_mesh_are_in_the_meshs_cluster_and_all_others_beside_the_workloads() {
        let client = joined(server("workloads"), server("mesh"));
        let name_of = |object: DynamicObject| object.metadata.name.unwrap();
        for (kind, cluster) in [
            (&kinds::VIRTUAL_SERVICE, "mesh"),
            (&kinds::DESTINATION_RULE, "mesh"),
            (&kinds::CANARY, "workloads"),
            (&kinds::SERVICE, "workloads"),
            (&kinds::DEPLOYMENT, "workloads"),
        ] {
            let everywhere: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api_resource());
            let mut listed = everywhere.list(&ListParams::default()).await.unwrap();
            assert_eq!(name_of(listed.items.remove(0)), cluster, "{kind:?} is listed");
            let of_one: Api<DynamicObject> = Api::namespaced_with(client.clone(), "apis", &kind.api_resource());
            let patched = of_one.patch("a", &PatchParams::default(), &Patch::Merge(json!({}))).await.unwrap();
            assert_eq!(name_of(patched), cluster, "{kind:?} is written");
        }
    }

    #[test]
    fn another_resource_of_the_same_group_is_another() {
        let kind = &kinds::VIRTUAL_SERVICE;
        assert!(is_about("/apis/networking.istio.io/v1/namespaces/test/virtualservices/a", kind));
        assert!(!is_about("/apis/networking.istio.io/v1/namespaces/virtualservices", kind));
        assert!(!is_about("/apis/networking.istio.io/v1/gateways", kind));
        assert!(!is_about("/api/v1/namespaces/virtualservices/services", kind));
    }
}
