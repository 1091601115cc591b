//! Rocket.Chat.

use super::{Alert, AlertTarget, Channel, HttpRequest, NotifyError, post, slack};

/// Rocket.Chat.
#[derive(Clone, Copy, Debug)]
pub struct Rocket;

impl Channel for Rocket {
    fn name(&self) -> &'static str {
        "rocket"
    }

    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError> {
        if target.address.is_empty() {
            return Ok(None);
        }
        let color = if alert.is_error() { "#FF0000" } else { "#0076D7" };
        Ok(Some(post(target, target.address.clone(), &slack::payload(target, alert, color)?)))
    }
}
