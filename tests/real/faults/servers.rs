//! The API server and etcd die, history is compacted, connections break, and calls are refused.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::SignedDuration;
use kube::api::DeleteParams;
use serde_json::json;

use super::operator::apply;
use super::subject::{IMAGES, STEPS, Subject};
use super::{ACCOUNT, Stage, api, eventually};
use crate::real::audit::{Call, NAMESPACE};
use crate::real::now;

/// What happens in the middle of a release.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The API server dies; while it is away etcd forgets its history.
    ApiServer,
    /// etcd dies and comes back.
    Etcd,
    /// All connections end, several times.
    Cuts,
    /// The API server refuses what the controller asks: 429, with Retry-After.
    TooManyRequests,
}

const FAULTS: [Fault; 4] = [Fault::ApiServer, Fault::Etcd, Fault::Cuts, Fault::TooManyRequests];
/// For how long the API server is away, and for how long it refuses all calls.
const AWAY: Duration = Duration::from_secs(3);
/// What an API server that has no seat for a call asks for at least, in its `Retry-After`; less by what it takes to write the log.
const RETRY_AFTER: SignedDuration = SignedDuration::from_millis(990);

pub async fn come_back(stage: &Stage) {
    let subject = Subject::create(&stage.client, "servers", 50.0).await;
    let mut images = IMAGES.iter().cycle();
    for _ in 0..stage.size.server_rounds {
        let mut faults = VecDeque::from(FAULTS);
        // Two in a release, or one where it has passed the second weight while the first fault was mended.
        for image in images.by_ref().take(FAULTS.len()) {
            subject.set_image(image).await;
            for weight in STEPS {
                if !subject.is_met_at(weight, image).await {
                    break;
                }
                let Some(fault) = faults.pop_front() else { break };
                let result = happens(stage, fault).await;
                stage.say(format!("{fault:?} at {weight} %: {result}"));
            }
            stage.ends_as_undisturbed(&subject, image).await;
            if faults.is_empty() {
                break;
            }
        }
        assert!(faults.is_empty(), "no release was in its middle for {faults:?}");
    }
    subject.assert_no_request_failed().await;
    stage.say(format!("servers failed; {} requests, none of them did", subject.requests()));
}

async fn happens(stage: &Stage, fault: Fault) -> String {
    let since = now();
    let count = |what: fn(&Call) -> bool| stage.audit.number(|call| call.received >= since && what(call));
    match fault {
        Fault::ApiServer => {
            stage.bench.component("stop", &["-KILL", "kube-apiserver"]).await;
            assert!(!answers(stage, "/readyz").await, "the API server is away");
            compact().await;
            tokio::time::sleep(AWAY).await;
            stage.bench.component("start", &["kube-apiserver"]).await;
            api_server_answers(stage).await;
            // Watches go on from where they were: whoever lists anew was told 410, for the history is gone.
            let is_list = |call: &Call| call.verb == "list" && call.resource == "canaries";
            eventually("what was watched is listed anew", async || count(is_list) > 0).await;
            format!("{} kinds listed anew", count(|call| call.verb == "list"))
        }
        Fault::Etcd => {
            stage.bench.component("stop", &["-KILL", "etcd"]).await;
            eventually("the API server misses etcd", async || !answers(stage, "/readyz/etcd").await).await;
            stage.bench.component("start", &["etcd"]).await;
            eventually("the API server has etcd again", async || answers(stage, "/readyz/etcd").await).await;
            api_server_answers(stage).await;
            format!("{} calls failed", count(|call| call.code >= 500))
        }
        Fault::Cuts => {
            let (mut connections, mut watches) = (0, 0);
            for _ in 0..3 {
                // A connection that is just being opened has none yet.
                eventually("there are watches", async || !stage.audit.open_watches().is_empty()).await;
                let open = stage.audit.open_watches();
                connections += stage.proxy.cut();
                let have_ended = async || stage.audit.open_watches().is_disjoint(&open);
                eventually("these watches have ended", have_ended).await;
                watches += open.len();
            }
            let lists = count(|call| call.verb == "list");
            format!("{connections} connections and {watches} watches ended; {lists} kinds listed anew")
        }
        Fault::TooManyRequests => {
            apply(&stage.bench, refusal().as_bytes());
            eventually("a call is refused", async || count(is_refusal) > 0).await;
            tokio::time::sleep(AWAY).await;
            for kind in ["FlowSchema", "PriorityLevelConfiguration"] {
                let api = api(stage.client.clone(), "flowcontrol.apiserver.k8s.io", "v1", kind, None);
                api.delete("aviary-is-refused", &DeleteParams::default()).await.unwrap();
            }
            let calls = || stage.audit.calls().into_iter().filter(|call| call.received >= since).collect::<Vec<_>>();
            eventually("what was refused is asked again", async || assert_waits_are_kept(&calls()) > 0).await;
            format!("{} calls refused, none of them made again before its time", count(is_refusal))
        }
    }
}

async fn api_server_answers(stage: &Stage) {
    let namespaces = api(stage.client.clone(), "", "v1", "Namespace", None);
    eventually("the API server answers", async || namespaces.get("servers").await.is_ok()).await;
}

/// What the API server says of its own health.
async fn answers(stage: &Stage, path: &str) -> bool {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let answer = tokio::time::timeout(AWAY, stage.client.request_text(request)).await;
    answer.is_ok_and(|answer| answer.is_ok())
}

/// Of a call that can be known when it is made again: events have no names before they are made. One seat is left, so that it is
/// often the repetition of an event, beside the write of a status.
fn is_refusal(call: &Call) -> bool {
    call.code == 429 && (call.resource.as_str(), call.verb.as_str()) != ("events", "create")
}

/// Who was refused waits for as long as the API server asked it to. Returns how many calls were made again.
fn assert_waits_are_kept(calls: &[Call]) -> usize {
    let of_account = || calls.iter().filter(|call| call.account == ACCOUNT);
    let mut made_again = 0;
    for refused in of_account().filter(|call| is_refusal(call)) {
        let asks = |call: &Call| [&call.verb, &call.resource, &call.namespace, &call.name].map(String::clone);
        let is_again = |call: &&Call| asks(call) == asks(refused) && call.received >= refused.answered;
        let Some(again) = of_account().filter(is_again).min_by_key(|call| call.received) else { continue };
        let waited = again.received.duration_since(refused.answered);
        assert!(waited >= RETRY_AFTER, "after {waited:#}\n{refused}\n{again}");
        made_again += 1;
    }
    made_again
}

/// etcd forgets all of its history.
async fn compact() {
    let etcd = reqwest::Client::new();
    let post =
        |path: &str, body: serde_json::Value| etcd.post(format!("http://127.0.0.1:2379{path}")).body(body.to_string());
    let status = post("/v3/maintenance/status", json!({})).send().await.unwrap().text().await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let revision = status["header"]["revision"].clone();
    let answer = post("/v3/kv/compaction", json!({"revision": revision, "physical": true})).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

/// As few seats for the controllers' service accounts as there can be, which is one, and no queue to wait for it.
fn refusal() -> String {
    let metadata = json!({"name": "aviary-is-refused"});
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": metadata,
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": metadata,
        "spec": {
            // The first of all but those that nobody may precede.
            "matchingPrecedence": 2,
            "priorityLevelConfiguration": {"name": "aviary-is-refused"},
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": NAMESPACE, "name": "*"}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
                }],
            }],
        },
    });
    format!("{level}\n---\n{schema}\n")
}
