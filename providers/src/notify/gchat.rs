//! Google Chat.

use serde_json::{Value, json};

use super::{Alert, AlertTarget, Channel, HttpRequest, NotifyError, post};

/// Google Chat, with a card.
#[derive(Clone, Copy, Debug)]
pub struct GoogleChat;

impl Channel for GoogleChat {
    fn name(&self) -> &'static str {
        "gchat"
    }

    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError> {
        if target.address.is_empty() {
            return Ok(None);
        }
        let mut sections = vec![section(&emphasised(&alert.message))];
        for (name, value) in &alert.fields {
            sections.push(section(&format!("{}<br>{}", escaped(name), emphasised(value))));
        }
        let body = json!({
            "cards": [{
                "header": {
                    "title": "Flagger",
                    "subtitle": alert.author(),
                    "imageUrl": "https://flagger.app/favicon.png",
                },
                "sections": sections,
            }],
        });
        Ok(Some(post(target, target.address.clone(), &body)))
    }
}

fn section(text: &str) -> Value {
    json!({"widgets": [{"textParagraph": {"text": text}}]})
}

fn emphasised(text: &str) -> String {
    format!("<font color=#848484><strong>{}</strong></font>", escaped(text))
}

/// Texts hold error messages of tenants' webhooks; cards are HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
