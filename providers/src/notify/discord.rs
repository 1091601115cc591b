//! Discord, through its Slack-compatible endpoint.

use super::{Alert, AlertTarget, Channel, HttpRequest, NotifyError, post, slack};

/// Discord.
#[derive(Clone, Copy, Debug)]
pub struct Discord;

impl Channel for Discord {
    fn name(&self) -> &'static str {
        "discord"
    }

    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError> {
        if target.address.is_empty() {
            return Ok(None);
        }
        let color = if alert.is_error() { "danger" } else { "good" };
        let url = slack_endpoint(&target.address);
        Ok(Some(post(target, url, &slack::payload(target, alert, color)?)))
    }
}

/// Discord takes Slack's payload under `<webhook>/slack`.
fn slack_endpoint(address: &str) -> String {
    let (path, query) = match address.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (address, String::new()),
    };
    if path.ends_with("/slack") {
        return address.to_owned();
    }
    format!("{}/slack{query}", path.trim_end_matches('/'))
}
