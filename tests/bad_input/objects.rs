//! Canary objects that are wrong in themselves, or ask for what is not served.

use serde_json::{Value, json};

use crate::support::{World, in_virtual_time, iterations};

/// A canary with this change is refused with a message that has these parts, on one event and on the object; the other
/// canary is released meanwhile; and `fix` (a merge into the spec) makes it run.
fn refused(change: impl FnOnce(&mut Value), parts: &[&str], fix: Value) {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_beside_another(change).await;
        world.release_the_other().await;

        let events = world.events("podinfo");
        assert_eq!(events.len(), 1, "{events:#?}");
        world.assert_told_once(parts);
        let accepted = world.condition("podinfo", "Accepted").expect("the object says so");
        assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("Invalid")));
        assert_eq!(accepted["message"], events[0].as_str());
        assert_eq!(world.metric("aviary_refused_canaries"), Some(1.0));
        let views = world.controller().handle().describe_all().await;
        let view = views.iter().find(|view| view.canary.name == "podinfo").expect("described");
        assert_eq!(view.refused.as_deref(), Some(events[0].as_str()));
        assert_eq!(world.calls_in_ten_minutes().await, 0);

        world.patch_canary("podinfo", fix).await;
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!(world.condition("podinfo", "Accepted"), None);
        assert_eq!(world.metric("aviary_refused_canaries"), Some(0.0));
        assert_eq!(world.count_events("podinfo", parts[0]), 1);
    });
}

#[test]
fn an_unknown_provider() {
    refused(
        |canary| canary["spec"]["provider"] = json!("isto"),
        &["spec.provider", "\"isto\" is unknown", "supported: istio"],
        json!({"provider": "istio"}),
    );
}

#[test]
fn a_provider_that_is_not_served_yet() {
    refused(
        |canary| canary["spec"]["provider"] = json!("linkerd"),
        &["spec.provider", "\"linkerd\" is not supported yet", "supported: istio"],
        json!({"provider": null}),
    );
}

#[test]
fn an_interval_that_is_none() {
    refused(
        |canary| canary["spec"]["analysis"]["interval"] = json!("10sx"),
        &["spec.analysis.interval", "10sx", "; "],
        json!({"analysis": {"interval": "10s"}}),
    );
}

/// In Flagger, one such object stops the informer and with it all canaries.
#[test]
fn a_fraction_where_a_whole_number_belongs() {
    refused(
        |canary| canary["spec"]["analysis"]["stepWeight"] = json!(2.5),
        &["spec.analysis.stepWeight", "2.5"],
        json!({"analysis": {"stepWeight": 10}}),
    );
}

#[test]
fn several_problems_are_all_named() {
    refused(
        |canary| {
            canary["spec"]["analysis"]["interval"] = json!("10sx");
            canary["spec"]["analysis"]["metrics"][0]["interval"] = json!("1my");
            canary["spec"]["progressDeadlineSeconds"] = json!(-1);
        },
        &[
            "spec.analysis.interval",
            "10sx",
            "spec.analysis.metrics[0].interval",
            "1my",
            "spec.progressDeadlineSeconds",
            "-1",
        ],
        json!({
            "progressDeadlineSeconds": 60,
            "analysis": {"interval": "10s", "metrics": [{"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}}]},
        }),
    );
}

#[test]
fn unsupported_features_of_one_object_are_all_named() {
    refused(
        |canary| {
            canary["spec"]["provider"] = json!("linkerd");
            canary["spec"]["analysis"]["mirror"] = json!(true);
            canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
        },
        &[
            "spec.provider",
            "\"linkerd\"",
            "spec.analysis.mirror",
            "traffic mirroring together with spec.analysis.match",
        ],
        json!({"provider": null, "analysis": {"mirror": null, "match": null}}),
    );
}

/// On a TCP route there are no requests to look at: Flagger would send everybody to the canary.
#[test]
fn ab_testing_where_requests_cannot_be_told_apart() {
    refused(
        |canary| {
            iterations(canary, 5);
            canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
            canary["spec"]["service"]["appProtocol"] = json!("tcp");
        },
        &["spec.analysis.match", "matching requests with this provider and protocol is not supported"],
        json!({"service": {"appProtocol": null}}),
    );
}

/// Flagger would wait at weight 0 for ever.
#[test]
fn mirroring_where_nothing_can_be_mirrored() {
    refused(
        |canary| {
            canary["spec"]["analysis"]["mirror"] = json!(true);
            canary["spec"]["service"]["appProtocol"] = json!("TCP");
        },
        &["spec.analysis.mirror", "traffic mirroring with this provider and protocol is not supported"],
        json!({"analysis": {"mirror": false}, "service": {"appProtocol": null}}),
    );
}

#[test]
fn session_affinity_where_there_are_no_cookies() {
    refused(
        |canary| {
            canary["spec"]["analysis"]["sessionAffinity"] = json!({"cookieName": "flagger-cookie"});
            canary["spec"]["service"]["appProtocol"] = json!("tcp");
        },
        &["spec.analysis.sessionAffinity", "session affinity with this provider and protocol is not supported"],
        json!({"service": {"appProtocol": null}}),
    );
}

/// Flagger runs it as another analysis, and says so in its log.
#[test]
fn what_a_provider_without_routes_cannot_do() {
    refused(
        |canary| {
            canary["spec"]["provider"] = json!("kubernetes");
            canary["spec"]["analysis"]["mirror"] = json!(true);
        },
        &[
            "spec.analysis.stepWeight: 10 is not supported by provider kubernetes",
            "use spec.analysis.iterations instead (blue/green)",
            "spec.analysis.mirror: true is not supported by provider kubernetes",
        ],
        json!({"analysis": {"mirror": null, "stepWeight": null, "maxWeight": null, "iterations": 2}}),
    );
}

#[test]
fn a_service_whose_users_cannot_be_routed() {
    refused(
        |canary| {
            canary["spec"]["provider"] = json!("kubernetes");
            canary["spec"]["targetRef"] = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
            canary["spec"]["analysis"] = json!({"interval": "10s", "threshold": 3, "iterations": 2});
        },
        &[
            "spec.targetRef.kind: Service is not supported by provider kubernetes",
            "release the Deployment or DaemonSet",
        ],
        json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment"}}),
    );
}

#[test]
fn a_daemon_set_with_an_autoscaler() {
    refused(
        |canary| {
            canary["spec"]["targetRef"]["kind"] = json!("DaemonSet");
            canary["spec"]["autoscalerRef"] =
                json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo-hpa"});
        },
        &["spec.autoscalerRef", "podinfo-hpa", "a DaemonSet has no replicas", "remove it"],
        json!({"targetRef": {"kind": "Deployment"}, "autoscalerRef": null}),
    );
}

#[test]
fn a_service_target_under_another_name() {
    refused(
        |canary| {
            canary["spec"]["targetRef"] = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
            canary["spec"]["service"]["name"] = json!("podinfo-svc");
        },
        &["spec.service.name", "podinfo-svc", "users of a Service target call the target podinfo", "remove it"],
        json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment"}, "service": {"name": null}}),
    );
}

/// A running release is not touched by an edit that makes no sense; it goes on when the edit is taken back.
#[test]
fn a_canary_that_becomes_invalid_stands_still() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_beside_another(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("podinfo")["canaryWeight"] == 20).await;
        world.patch_canary("podinfo", json!({"analysis": {"interval": "10sx"}})).await;
        world.release_the_other().await;
        assert_eq!(world.calls_in_ten_minutes().await, 0);
        assert_eq!(
            (world.phase("podinfo").as_str(), &world.status("podinfo")["canaryWeight"]),
            ("Progressing", &json!(20))
        );
        world.assert_told_once(&["spec.analysis.interval", "10sx"]);
        assert!(world.condition("podinfo", "Accepted").is_some());
        assert!(world.condition("podinfo", "Promoted").is_some(), "other conditions stay");

        world.patch_canary("podinfo", json!({"analysis": {"interval": "10s"}})).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.condition("podinfo", "Accepted"), None);
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    });
}
