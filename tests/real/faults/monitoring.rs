//! Prometheus is away.

use super::subject::{IMAGES, STEPS, Subject};
use super::{Stage, eventually};

const OUTAGE: &str = "metrics are unavailable";

/// The canary holds and says why, is not rolled back, and goes on by itself.
pub async fn is_waited_for(stage: &Stage) {
    let subject = Subject::create(&stage.client, "monitoring", 50.0).await;
    subject.set_image(IMAGES[0]).await;
    subject.reaches(STEPS[0]).await;
    stage.bench.component("stop", &["-KILL", "prometheus"]).await;
    let is_told = async || metrics_available(&subject).await == Some("False".to_owned());
    eventually("the outage is told on the object", is_told).await;
    // On a busy machine a check may have failed before.
    let before = subject.status().await;
    tokio::time::sleep(stage.size.outage).await;
    let status = subject.status().await;
    let story = subject.story().await;
    assert_eq!(status["phase"], "Progressing", "{story}");
    for field in ["canaryWeight", "failedChecks"] {
        assert_eq!(status[field], before[field], "{field}\n{story}");
    }
    assert!(is_told().await, "{story}");
    assert_eq!(subject.times_told(OUTAGE).await, 1, "{story}");

    stage.bench.component("start", &["prometheus"]).await;
    stage.ends_as_undisturbed(&subject, IMAGES[0]).await;
    assert_eq!(metrics_available(&subject).await, None);
    subject.assert_no_request_failed().await;
    let halts = subject.times_told("Halt").await;
    stage.say(format!(
        "Prometheus was away for {:?}; checks failed after that: {halts}; requests: {}",
        stage.size.outage,
        subject.requests()
    ));
}

/// The status of the condition; `None` where there is none.
async fn metrics_available(subject: &Subject) -> Option<String> {
    let status = subject.status().await;
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "MetricsAvailable")?;
    found["status"].as_str().map(str::to_owned)
}
