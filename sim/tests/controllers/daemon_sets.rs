//! DaemonSets.

use aviary_sim::controllers::{PodDetail, WorkloadKind};
use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_daemon_set_runs_once_and_a_selector_without_node_empties_it() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        let created = bench.store.create(&kinds::DAEMON_SET, daemon_set()).unwrap();
        assert_eq!(created["metadata"]["generation"], 1);
        let get = || bench.store.get(&kinds::DAEMON_SET, NAMESPACE, "agent").unwrap();
        let image = || {
            let versions = bench.workloads.ready_of(WorkloadKind::DaemonSet, NAMESPACE, "agent");
            versions.iter().map(|version| (version.image.to_string(), version.ready)).collect::<Vec<_>>()
        };
        bench.at(1.0).await;
        let starting = get();
        let status = |object: &Value| {
            [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "updatedNumberScheduled",
                "numberReady",
                "numberAvailable",
            ]
            .map(|field| number(object, field))
        };
        assert_eq!(status(&starting), [1, 1, 1, 0, 0], "{detail:?}");
        assert_eq!(number(&starting, "numberUnavailable"), 1);
        bench.at(4.0).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
        assert_eq!(image(), [("agent:1".to_owned(), 1)]);

        let update = |change: &dyn Fn(&mut Value)| {
            bench
                .store
                .update(&kinds::DAEMON_SET, NAMESPACE, "agent", |object| {
                    change(&mut object["spec"]["template"]["spec"])
                })
                .unwrap();
        };
        update(&|spec| spec["containers"][0]["image"] = "agent:2".into());
        bench.at(4.5).await;
        assert_eq!(status(&get()), [1, 0, 0, 0, 0], "{detail:?}: the old pod leaves first");
        assert!(is_observed(&get()));
        bench.at(8.5).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
        assert_eq!(image(), [("agent:2".to_owned(), 1)]);

        update(&|spec| spec["nodeSelector"] = json!({"flagger.app/scale-to-zero": "true"}));
        bench.at(10.0).await;
        assert_eq!(status(&get()), [0, 0, 0, 0, 0], "{detail:?}");
        assert!(image().is_empty());
        assert!(bench.pods().is_empty());
        update(&|spec| {
            spec.as_object_mut().unwrap().remove("nodeSelector");
        });
        bench.at(14.0).await;
        assert_eq!(status(&get()), [1, 1, 1, 1, 1], "{detail:?}");
    }
}

/// A new pod starts beside the old one, which goes when the new one has been available for long enough.
#[tokio::test(start_paused = true)]
async fn a_surging_daemon_set_is_never_without_a_pod() {
    let bench = Bench::new(PodDetail::Objects);
    let mut object = daemon_set();
    object["spec"]["minReadySeconds"] = 5.into();
    object["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxSurge": 1, "maxUnavailable": 0});
    bench.store.create(&kinds::DAEMON_SET, object).unwrap();
    bench.at(20.0).await;
    let image = || {
        let versions = bench.workloads.ready_of(WorkloadKind::DaemonSet, NAMESPACE, "agent");
        versions.iter().map(|version| (version.image.to_string(), version.ready)).collect::<Vec<_>>()
    };
    assert_eq!(image(), [("agent:1".to_owned(), 1)]);
    bench
        .store
        .update(&kinds::DAEMON_SET, NAMESPACE, "agent", |object| {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = "agent:2".into();
        })
        .unwrap();
    bench.at(20.5).await;
    assert_eq!((bench.pods().len(), image()), (2, vec![("agent:1".to_owned(), 1)]));
    bench.at(26.0).await;
    assert_eq!(image().iter().map(|(_, ready)| ready).sum::<u32>(), 2, "not for five seconds yet");
    bench.at(40.0).await;
    assert_eq!((bench.pods().len(), image()), (1, vec![("agent:2".to_owned(), 1)]));
}
