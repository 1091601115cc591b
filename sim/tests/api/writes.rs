use kube::api::PostParams;
use serde_json::json;

use crate::support::{Refusal, config_map, deployment, object, value, version_of, widget, world};

#[tokio::test(start_paused = true)]
async fn create_fills_metadata_and_read_returns_the_same() {
    let world = world().await;
    let created = world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert_eq!(created.metadata.namespace.as_deref(), Some("test"));
    assert!(created.metadata.uid.is_some());
    assert!(created.metadata.creation_timestamp.is_some());
    assert_eq!(created.metadata.generation, None, "config maps have none");
    assert_eq!(world.config_maps().get("a").await.unwrap(), created);
}

#[tokio::test(start_paused = true)]
async fn generated_names_get_five_characters() {
    let world = world().await;
    let mut first = config_map("ignored");
    first.metadata.name = None;
    first.metadata.generate_name = Some("gen-".to_owned());
    let one = world.config_maps().create(&PostParams::default(), &first).await.unwrap();
    let two = world.config_maps().create(&PostParams::default(), &first).await.unwrap();
    let name = one.metadata.name.unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    assert_ne!(Some(name), two.metadata.name);
}

#[tokio::test(start_paused = true)]
async fn a_stale_version_conflicts_in_the_servers_words() {
    let world = world().await;
    let widgets = world.widgets().await;
    let created = widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let mut changed = created.clone();
    changed.data["spec"]["size"] = json!(2);
    let updated = widgets.replace("w", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(version_of(&updated), version_of(&created));
    let refusal = widgets.replace("w", &PostParams::default(), &changed).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        refusal.message,
        "Operation cannot be fulfilled on widgets.example.com \"w\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
}

#[tokio::test(start_paused = true)]
async fn custom_resources_need_a_version_and_built_in_ones_do_not() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let refusal = widgets.replace("w", &PostParams::default(), &widget("w", &json!({"size": 2}))).await.refusal();
    assert_eq!(refusal.code, 422);
    assert!(refusal.message.contains("metadata.resourceVersion: Invalid value: 0"), "{}", refusal.message);
    assert!(refusal.message.ends_with("must be specified for an update"));
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let mut changed = config_map("a");
    changed.data["data"] = json!({"key": "2"});
    let updated = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(updated.data["data"]["key"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let replaced = maps.replace("a", &PostParams::default(), &created).await.unwrap();
    assert_eq!(version_of(&replaced), version_of(&created));
    let deployments = world.deployments();
    let created = deployments.create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let replaced = deployments.replace("d", &PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    assert_eq!(version_of(&replaced), version_of(&created), "defaults are no change");
}

#[tokio::test(start_paused = true)]
async fn generation_counts_changes_of_the_spec() {
    let world = world().await;
    let widgets = world.widgets().await;
    let created = widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    let mut labelled = created;
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    labelled.metadata.generation = Some(40);
    let labelled = widgets.replace("w", &PostParams::default(), &labelled).await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(1), "labels do not count");
    let mut resized = labelled;
    resized.data["spec"]["size"] = json!(2);
    let resized = widgets.replace("w", &PostParams::default(), &resized).await.unwrap();
    assert_eq!(resized.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn annotations_of_deployments_count_as_a_generation() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let mut changed = deployment("d", "podinfo:1");
    changed.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
    let updated = deployments.replace("d", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
    changed.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let updated = deployments.replace("d", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn identity_is_the_servers() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let mut other = created.clone();
    other.metadata.uid = Some("11111111-2222-4333-8444-555555555555".to_owned());
    let refusal = maps.replace("a", &PostParams::default(), &other).await.refusal();
    assert_eq!(refusal.code, 409);
    assert!(refusal.message.contains("Precondition failed: UID in precondition"), "{}", refusal.message);
    let refusal = maps.replace("b", &PostParams::default(), &created).await.refusal();
    assert_eq!(refusal.code, 400);
    assert_eq!(refusal.message, "the name of the object (a) does not match the name on the URL (b)");
}

#[tokio::test(start_paused = true)]
async fn only_some_kinds_are_created_by_put() {
    let world = world().await;
    let refusal = world.config_maps().replace("a", &PostParams::default(), &config_map("a")).await.refusal();
    assert_eq!(refusal.code, 404);
    assert_eq!(refusal.message, "configmaps \"a\" not found");
    let lease = object(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "me"},
    }));
    let leases = world.api("coordination.k8s.io", "v1", "Lease");
    let created = leases.replace("l", &PostParams::default(), &lease).await.unwrap();
    assert_eq!(value(&created)["spec"]["holderIdentity"], "me");
    let refusal = leases.replace("l", &PostParams::default(), &lease).await.refusal();
    assert_eq!(refusal.code, 422, "leases are replaced under a version only");
}
