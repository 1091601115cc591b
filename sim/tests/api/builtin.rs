use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{Refusal, deployment, object, value, world};

#[tokio::test(start_paused = true)]
async fn deployments_are_defaulted() {
    let world = world().await;
    let created = world.deployments().create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let created = value(&created);
    let spec = &created["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Always");
    assert_eq!(pod["dnsPolicy"], "ClusterFirst");
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
}

#[tokio::test(start_paused = true)]
async fn selectors_of_deployments_must_match_and_stay() {
    let world = world().await;
    let deployments = world.deployments();
    let mut stray = deployment("d", "podinfo:1");
    stray.data["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let refusal = deployments.create(&PostParams::default(), &stray).await.refusal();
    assert_eq!(
        refusal.message,
        "Deployment.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does \
         not match template `labels`"
    );
    deployments.create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let patch = json!({"spec": {
        "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}},
    }});
    let refusal = deployments.patch("d", &PatchParams::default(), &Patch::Merge(patch)).await.refusal();
    assert_eq!(
        refusal.message,
        "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"
    );
}

#[tokio::test(start_paused = true)]
async fn services_get_an_address_and_keep_it() {
    let world = world().await;
    let services = world.api("", "v1", "Service");
    let service = |name: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]},
        }))
    };
    let created = services.create(&PostParams::default(), &service("s")).await.unwrap();
    let spec = &value(&created)["spec"];
    assert_eq!(spec["type"], "ClusterIP");
    assert_eq!(spec["sessionAffinity"], "None");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    let other = services.create(&PostParams::default(), &service("t")).await.unwrap();
    assert_ne!(value(&other)["spec"]["clusterIP"], spec["clusterIP"]);
    let mut replaced = service("s");
    replaced.data["spec"]["selector"] = json!({"app": "y"});
    let replaced = services.replace("s", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(value(&replaced)["spec"]["clusterIP"], spec["clusterIP"]);
    let moved = json!({"spec": {"clusterIP": "10.96.200.200", "clusterIPs": ["10.96.200.200"]}});
    let refusal = services.patch("s", &PatchParams::default(), &Patch::Merge(moved)).await.refusal();
    assert!(refusal.message.contains("may not change once set"), "{}", refusal.message);
    let portless = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "u"}, "spec": {"selector": {"app": "x"}},
    }));
    let refusal = services.create(&PostParams::default(), &portless).await.refusal();
    assert!(refusal.message.ends_with("spec.ports: Required value"), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn secrets_take_plain_text_and_give_base64() {
    let world = world().await;
    let secret = object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"token": "hello"}, "data": {"other": "eA=="},
    }));
    let created = world.api("", "v1", "Secret").create(&PostParams::default(), &secret).await.unwrap();
    let created = value(&created);
    assert_eq!(created["type"], "Opaque");
    assert_eq!(created["data"], json!({"token": "aGVsbG8=", "other": "eA=="}));
    assert_eq!(created.get("stringData"), None);
}

#[tokio::test(start_paused = true)]
async fn autoscalers_are_defaulted_and_bounded() {
    let world = world().await;
    let scaler = |maximum: i64| {
        object(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": maximum},
        }))
    };
    let scalers = world.api("autoscaling", "v2", "HorizontalPodAutoscaler");
    assert_eq!(scalers.create(&PostParams::default(), &scaler(0)).await.refusal().code, 422);
    let created = scalers.create(&PostParams::default(), &scaler(4)).await.unwrap();
    assert_eq!(value(&created)["spec"]["minReplicas"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_account_gets_a_token_with_its_claims() {
    let world = world().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let created = world.api("", "v1", "ServiceAccount").create(&PostParams::default(), &object(account)).await.unwrap();
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/robot/token", world.namespace);
    let ask = async |spec: serde_json::Value| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}).to_string();
        world.request("POST", &path, "application/json", &body).await
    };
    let request = ask(json!({"expirationSeconds": 1200, "audiences": ["bank"]})).await.unwrap();
    assert_eq!((&request["metadata"]["name"], &request["spec"]["expirationSeconds"]), (&json!("robot"), &json!(1200)));
    let token = request["status"]["token"].as_str().unwrap();
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts: {token}") };
    let padded =
        format!("{claims:=<width$}", width = claims.len().next_multiple_of(4)).replace('-', "+").replace('_', "/");
    let claims: k8s_openapi::ByteString = serde_json::from_value(json!(padded)).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims.0).unwrap();
    assert_eq!(claims["sub"], format!("system:serviceaccount:{}:robot", world.namespace));
    assert_eq!(claims["aud"], json!(["bank"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 1200);
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["uid"], json!(created.metadata.uid));
    let short = ask(json!({"expirationSeconds": 60})).await.refusal();
    assert_eq!(
        short.message,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a \
         duration less than 10 minutes"
    );
    let unbound = ask(json!({"boundObjectRef": {"kind": "Pod", "name": "missing"}})).await.refusal();
    assert_eq!((unbound.code, unbound.message.as_str()), (404, "pods \"missing\" not found"));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_may_mount_its_claims() {
    let world = world().await;
    let sets = world.api("apps", "v1", "StatefulSet");
    let set = |name: &str, mounted: &str| {
        object(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
            "spec": {
                "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [
                        {"name": "a", "image": "nginx:1", "volumeMounts": [{"name": mounted, "mountPath": "/data"}]},
                    ]},
                },
                "volumeClaimTemplates": [{
                    "metadata": {"name": "www"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                }],
            },
        }))
    };
    sets.create(&PostParams::default(), &set("web", "www")).await.unwrap();
    let refusal = sets.create(&PostParams::default(), &set("other", "wwww")).await.refusal();
    assert_eq!(
        refusal.message,
        "StatefulSet.apps \"other\" is invalid: spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"wwww\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_policy_is_about_what_comes_in_unless_it_says_otherwise() {
    let world = world().await;
    let policies = world.api("networking.k8s.io", "v1", "NetworkPolicy");
    let types = async |name: &str, spec: serde_json::Value| {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
        });
        value(&policies.create(&PostParams::default(), &object(policy)).await.unwrap())["spec"]["policyTypes"].clone()
    };
    assert_eq!(types("in", json!({"podSelector": {}})).await, json!(["Ingress"]));
    assert_eq!(types("both", json!({"podSelector": {}, "egress": [{}]})).await, json!(["Ingress", "Egress"]));
}

#[tokio::test(start_paused = true)]
async fn a_volume_claim_says_how_much_and_how() {
    let world = world().await;
    let claims = world.api("", "v1", "PersistentVolumeClaim");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {}});
    assert_eq!(
        claims.create(&PostParams::default(), &object(claim)).await.refusal().message,
        "PersistentVolumeClaim \"c\" is invalid: [spec.accessModes: Required value: at least 1 access mode is required, \
         spec.resources[storage]: Required value]"
    );
}
