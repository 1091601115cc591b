use kube::Resource;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;

use crate::support::{Refusal, config_map, version_of, widget_definition_in, world};

/// Waits until an object is gone: a real cluster collects a moment later.
async fn gone(api: &Api<DynamicObject>, name: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while api.get_opt(name).await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn owned_by(name: &str, owner: &DynamicObject, blocks: bool) -> DynamicObject {
    let mut object = config_map(name);
    let mut reference = owner.owner_ref(&crate::support::resource("", "v1", "ConfigMap")).unwrap();
    reference.block_owner_deletion = Some(blocks);
    object.metadata.owner_references = Some(vec![reference]);
    object
}

#[tokio::test(start_paused = true)]
async fn a_delete_answers_with_a_status_and_the_object_is_gone() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let status = maps.delete("a", &DeleteParams::default()).await.unwrap().right().unwrap();
    let details = status.details.unwrap();
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("a", "configmaps"));
    assert_eq!(Some(details.uid), created.metadata.uid);
    assert_eq!(maps.get("a").await.refusal().code, 404);
    assert_eq!(maps.delete("a", &DeleteParams::default()).await.refusal().code, 404);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_and_none_can_be_added_meanwhile() {
    let world = world().await;
    let maps = world.config_maps();
    let mut held = config_map("a");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let marked = maps.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    let again = maps.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(version_of(&again), version_of(&marked));
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let refusal = maps.patch("a", &PatchParams::default(), &Patch::Merge(more)).await.refusal();
    assert_eq!(refusal.code, 422);
    assert!(
        refusal
            .message
            .contains("metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"),
        "{}",
        refusal.message
    );
    let released = json!({"metadata": {"finalizers": null}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(released)).await.unwrap();
    assert_eq!(maps.get("a").await.refusal().code, 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_guard_a_delete() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let wrong_uid = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: Some("other".to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    let refusal = maps.delete("a", &wrong_uid).await.refusal();
    assert_eq!(refusal.code, 409);
    assert!(
        refusal.message.contains("the UID in the precondition (other) does not match the UID in record"),
        "{}",
        refusal.message
    );
    let right = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: created.metadata.uid.clone(),
            resource_version: created.metadata.resource_version,
        }),
        ..DeleteParams::default()
    };
    maps.delete("a", &right).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_an_object_owns_goes_with_it() {
    let world = world().await;
    let maps = world.config_maps();
    let owner = maps.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    let child = maps.create(&PostParams::default(), &owned_by("child", &owner, false)).await.unwrap();
    maps.create(&PostParams::default(), &owned_by("grandchild", &child, false)).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    gone(&maps, "child").await;
    gone(&maps, "grandchild").await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_without_their_owner() {
    let world = world().await;
    let maps = world.config_maps();
    let owner = maps.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    maps.create(&PostParams::default(), &owned_by("child", &owner, false)).await.unwrap();
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    maps.delete("owner", &params).await.unwrap();
    gone(&maps, "owner").await;
    let child = maps.get("child").await.unwrap();
    assert_eq!(child.metadata.owner_references, None);
}

#[tokio::test(start_paused = true)]
async fn a_foreground_delete_waits_for_blocking_dependents() {
    let world = world().await;
    let maps = world.config_maps();
    let owner = maps.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    let mut child = owned_by("child", &owner, true);
    child.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &child).await.unwrap();
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    let waiting = maps.get("owner").await.unwrap();
    assert_eq!(waiting.metadata.finalizers, Some(vec!["foregroundDeletion".to_owned()]));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while maps.get("child").await.unwrap().metadata.deletion_timestamp.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "child not marked");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("child", &PatchParams::default(), &released).await.unwrap();
    gone(&maps, "owner").await;
}

#[tokio::test(start_paused = true)]
async fn an_object_of_an_absent_owner_is_collected() {
    let world = world().await;
    let maps = world.config_maps();
    let mut ghost = maps.create(&PostParams::default(), &config_map("owner")).await.unwrap();
    ghost.metadata.uid = Some("00000000-0000-4000-8000-000000000000".to_owned());
    maps.create(&PostParams::default(), &owned_by("child", &ghost, false)).await.unwrap();
    gone(&maps, "child").await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_contents_along() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let namespaces = world.cluster_api("", "v1", "Namespace");
    let answer = namespaces.delete("test", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(answer.data["status"]["phase"], "Terminating");
    gone(&namespaces, "test").await;
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let world = world().await;
    let maps = world.config_maps();
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("name in (a,c)")).await.unwrap();
    gone(&maps, "a").await;
    gone(&maps, "c").await;
    assert!(maps.get_opt("b").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_definition_waits_for_the_finalizers_of_its_objects() {
    let world = world().await;
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let (group, definition) = ("deletion.example.com", "widgets.deletion.example.com");
    world.define(widget_definition_in(group)).await;
    let widgets = world.api(group, "v1", "Widget");
    world.until_served(&widgets).await;
    let mut held = DynamicObject::new("held", &crate::support::resource(group, "v1", "Widget"));
    held.data = json!({"spec": {"size": 1}});
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    widgets.create(&PostParams::default(), &held).await.unwrap();
    definitions.delete(definition, &DeleteParams::default()).await.unwrap();
    let waiting = definitions.get(definition).await.unwrap().metadata;
    assert!(waiting.deletion_timestamp.is_some());
    assert_eq!(waiting.finalizers.unwrap(), ["customresourcecleanup.apiextensions.k8s.io"]);
    let is_going = async || widgets.get("held").await.is_ok_and(|widget| widget.metadata.deletion_timestamp.is_some());
    world.until(is_going).await;
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    widgets.patch("held", &PatchParams::default(), &released).await.unwrap();
    gone(&definitions, definition).await;
}

#[tokio::test(start_paused = true)]
async fn the_namespaces_of_the_system_stay() {
    let world = world().await;
    let namespaces = world.cluster_api("", "v1", "Namespace");
    for name in ["default", "kube-system", "kube-public"] {
        let refusal = namespaces.delete(name, &DeleteParams::default()).await.refusal();
        assert_eq!(refusal.code, 403, "{name}");
        assert!(refusal.message.contains("this namespace may not be deleted"), "{}", refusal.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_says_what_is_left_in_it() {
    let world = world().await;
    let maps = world.config_maps();
    for name in ["a", "b"] {
        let mut map = config_map(name);
        map.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    maps.create(&PostParams::default(), &config_map("c")).await.unwrap();
    let namespaces = world.cluster_api("", "v1", "Namespace");
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    let told = |namespace: &DynamicObject, name: &str| {
        let conditions = namespace.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == name).unwrap_or_default();
        format!("{} {}", condition["status"], condition["message"])
    };
    // A real namespace controller looks at it a moment later.
    let until = async |expected: &str| {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let namespace = namespaces.get(&world.namespace).await.unwrap();
            if told(&namespace, "NamespaceContentRemaining") == expected {
                return namespace;
            }
            assert!(tokio::time::Instant::now() < deadline, "{:#}", namespace.data["status"]);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let two = until("\"True\" \"Some resources are remaining: configmaps. has 2 resource instances\"").await;
    assert_eq!(
        told(&two, "NamespaceFinalizersRemaining"),
        "\"True\" \"Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances\""
    );
    assert_eq!(
        told(&two, "NamespaceDeletionContentFailure"),
        "\"False\" \"All content successfully deleted, may be waiting on finalization\""
    );
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &release).await.unwrap();
    until("\"True\" \"Some resources are remaining: configmaps. has 1 resource instances\"").await;
    maps.patch("b", &PatchParams::default(), &release).await.unwrap();
    gone(&namespaces, &world.namespace).await;
}
