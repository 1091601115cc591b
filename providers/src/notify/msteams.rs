//! Microsoft Teams.

use serde_json::{Value, json};

use super::{Alert, AlertTarget, Channel, HttpRequest, NotifyError, post};

/// Microsoft Teams, with a MessageCard.
#[derive(Clone, Copy, Debug)]
pub struct MicrosoftTeams;

impl Channel for MicrosoftTeams {
    fn name(&self) -> &'static str {
        "msteams"
    }

    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError> {
        if target.address.is_empty() {
            return Ok(None);
        }
        let facts: Vec<Value> =
            alert.fields.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let body = json!({
            "@type": "MessageCard",
            "@context": "http://schema.org/extensions",
            "themeColor": if alert.is_error() { "FF0000" } else { "0076D7" },
            "summary": alert.author(),
            "sections": [{
                "activityTitle": alert.message,
                "activitySubtitle": alert.author(),
                "facts": facts,
            }],
        });
        Ok(Some(post(target, target.address.clone(), &body)))
    }
}
