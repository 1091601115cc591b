//! Slack, and the payload that others took over from it.

use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::{Alert, AlertTarget, Channel, HttpRequest, NotifyError, post};

/// Slack.
#[derive(Clone, Copy, Debug)]
pub struct Slack;

impl Channel for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError> {
        if target.address.is_empty() {
            return Ok(None);
        }
        let color = if alert.is_error() { "danger" } else { "good" };
        let mut request = post(target, target.address.clone(), &payload(target, alert, color)?);
        if let Some(token) = target.token.as_deref().filter(|token| !token.is_empty()) {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| NotifyError::BadToken)?;
            value.set_sensitive(true);
            request.headers.insert(AUTHORIZATION, value);
        }
        Ok(Some(request))
    }
}

/// A message with one attachment.
pub(super) fn payload(target: &AlertTarget, alert: &Alert, color: &str) -> Result<Value, NotifyError> {
    if target.username.is_empty() {
        return Err(NotifyError::Missing("username"));
    }
    if target.channel.is_empty() {
        return Err(NotifyError::Missing("channel"));
    }
    let fields: Vec<Value> =
        alert.fields.iter().map(|(title, value)| json!({"title": title, "value": value, "short": false})).collect();
    Ok(json!({
        "channel": target.channel,
        "username": target.username,
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [{
            "color": color,
            "author_name": alert.author(),
            "text": alert.message,
            "mrkdwn_in": ["text"],
            "fields": fields,
        }],
    }))
}
