#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use super::AlertSeverity as Severity;
use super::*;

fn target() -> AlertTarget {
    AlertTarget {
        address: "https://chat.example/hook/T0K".into(),
        channel: "general".into(),
        username: "flagger".into(),
        token: Some("xoxb".into()),
        proxy: Some("http://proxy:3128".into()),
    }
}

fn alert(severity: Severity) -> Alert {
    Alert {
        message: "Failed checks threshold reached 2".into(),
        severity,
        canary: "podinfo".into(),
        namespace: "test".into(),
        fields: vec![("Target".into(), "Deployment/podinfo.test".into())],
    }
}

fn send(channel: &dyn Channel, severity: Severity) -> (HttpRequest, Value) {
    let request = channel.request(&target(), &alert(severity)).unwrap().expect("a request");
    let body = serde_json::from_slice(&request.body).unwrap();
    (request, body)
}

fn slack_payload(color: &str) -> Value {
    json!({
        "channel": "general",
        "username": "flagger",
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [{
            "color": color,
            "author_name": "podinfo.test",
            "text": "Failed checks threshold reached 2",
            "mrkdwn_in": ["text"],
            "fields": [{"title": "Target", "value": "Deployment/podinfo.test", "short": false}],
        }],
    })
}

#[test]
fn slack() {
    let (request, body) = send(&Slack, Severity::Error);
    assert_eq!(body, slack_payload("danger"));
    assert_eq!(request.headers["authorization"], "Bearer xoxb");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.proxy.as_deref(), Some("http://proxy:3128"));
    assert_eq!(send(&Slack, Severity::Warn).1, slack_payload("good"));
}

#[test]
fn discord_takes_slacks_payload_under_its_own_path() {
    let (request, body) = send(&Discord, Severity::Info);
    assert_eq!(body, slack_payload("good"));
    assert_eq!(request.url, "https://chat.example/hook/T0K/slack");
    assert!(!request.headers.contains_key("authorization"));
    for (address, url) in [
        ("https://d/api/1/slack", "https://d/api/1/slack"),
        ("https://d/api/1/", "https://d/api/1/slack"),
        ("https://d/api/1?thread_id=2", "https://d/api/1/slack?thread_id=2"),
    ] {
        let target = AlertTarget { address: address.into(), ..target() };
        let request = Discord.request(&target, &alert(Severity::Info)).unwrap().unwrap();
        assert_eq!(request.url, url);
    }
}

#[test]
fn rocket() {
    assert_eq!(send(&Rocket, Severity::Error).1, slack_payload("#FF0000"));
    let (request, body) = send(&Rocket, Severity::Info);
    assert_eq!(body, slack_payload("#0076D7"));
    assert!(!request.headers.contains_key("authorization"));
}

#[test]
fn msteams() {
    let (_, body) = send(&MicrosoftTeams, Severity::Error);
    let expected = json!({
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": "FF0000",
        "summary": "podinfo.test",
        "sections": [{
            "activityTitle": "Failed checks threshold reached 2",
            "activitySubtitle": "podinfo.test",
            "facts": [{"name": "Target", "value": "Deployment/podinfo.test"}],
        }],
    });
    assert_eq!(body, expected);
    assert_eq!(send(&MicrosoftTeams, Severity::Warn).1["themeColor"], "0076D7");
}

#[test]
fn gchat_shows_tenants_texts_as_text() {
    let mut alert = alert(Severity::Info);
    alert.message = "failed <b>&</b>".into();
    let request = GoogleChat.request(&target(), &alert).unwrap().unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let text = |text: &str| json!({"widgets": [{"textParagraph": {"text": text}}]});
    let expected = json!({
        "cards": [{
            "header": {"title": "Flagger", "subtitle": "podinfo.test", "imageUrl": "https://flagger.app/favicon.png"},
            "sections": [
                text("<font color=#848484><strong>failed &lt;b&gt;&amp;&lt;/b&gt;</strong></font>"),
                text("Target<br><font color=#848484><strong>Deployment/podinfo.test</strong></font>"),
            ],
        }],
    });
    assert_eq!(body, expected);
}

#[test]
fn nothing_is_sent_without_an_address() {
    let target = AlertTarget { address: String::new(), ..target() };
    for channel in ALL {
        assert_eq!(channel.request(&target, &alert(Severity::Info)), Ok(None), "{}", channel.name());
    }
}

#[test]
fn slack_and_rocket_want_a_channel_and_a_sender() {
    let target = AlertTarget { channel: String::new(), ..target() };
    assert_eq!(Slack.request(&target, &alert(Severity::Info)), Err(NotifyError::Missing("channel")));
    assert_eq!(Rocket.request(&target, &alert(Severity::Info)), Err(NotifyError::Missing("channel")));
}

#[test]
fn severities_are_filtered_as_documented() {
    use Severity::{Error, Info, Warn};
    let sent = |wanted| [Info, Warn, Error].map(|severity| wants(wanted, severity));
    assert_eq!(sent(Severity::Info), [true, true, true]);
    assert_eq!(sent(Severity::Warn), [false, true, true]);
    assert_eq!(sent(Severity::Error), [false, false, true]);
}

#[test]
fn the_secrets_address_wins_and_is_mandatory() {
    let mut provider = AlertProvider::default();
    provider.spec.address = Some("https://plain".into());
    let plain = AlertTarget::from_provider(&provider, None).unwrap();
    assert_eq!(
        (plain.address.as_str(), plain.channel.as_str(), plain.username.as_str()),
        ("https://plain", "general", "flagger")
    );
    let secret = BTreeMap::from([("address".to_owned(), b"https://secret\n".to_vec())]);
    assert_eq!(AlertTarget::from_provider(&provider, Some(&secret)).unwrap().address, "https://secret");
    assert_eq!(AlertTarget::from_provider(&provider, Some(&BTreeMap::new())), Err(NotifyError::NoAddress));
    assert!(!format!("{plain:?}").contains("https"), "the address is a secret");
}

#[test]
fn channels_are_found_by_type() {
    for name in ["slack", "discord", "msteams", "rocket", "gchat"] {
        assert_eq!(for_type(name).map(Channel::name), Ok(name));
    }
    let error = for_type("pager").err().unwrap().to_string();
    assert_eq!(error, "alert provider type \"pager\" is unknown; known: slack, discord, msteams, rocket, gchat");
}
