//! Webhooks of an analysis.

use std::collections::BTreeMap;
use std::time::Duration;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedWebhook {
    /// Name.
    pub name: String,
    /// When it is called.
    pub kind: WebhookType,
    /// Address, with scheme `http` or `https`.
    pub url: String,
    /// Timeout of one attempt. Default 10 s.
    pub timeout: Duration,
    /// How often a call is tried again.
    pub retries: u32,
    /// Whether the certificate of the other side is not checked.
    pub disable_tls: bool,
    /// Whether the alert of a closed gate is kept back.
    pub mute_alert: bool,
    /// Sent along; `None` sends no such field.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// When a webhook is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WebhookType {
    /// Before the target is scaled up.
    ConfirmRollout,
    /// Before the first step.
    PreRollout,
    /// In each check round. Also what an empty type means.
    #[default]
    Rollout,
    /// Before each increase of the weight.
    ConfirmTrafficIncrease,
    /// Before the promotion.
    ConfirmPromotion,
    /// After the run has ended.
    PostRollout,
    /// In each round; success means "roll back".
    Rollback,
    /// Receives every event.
    Event,
}

impl WebhookType {
    /// Every type, in the order of a rollout.
    pub const ALL: [WebhookType; 8] = [
        WebhookType::ConfirmRollout,
        WebhookType::PreRollout,
        WebhookType::Rollout,
        WebhookType::ConfirmTrafficIncrease,
        WebhookType::ConfirmPromotion,
        WebhookType::PostRollout,
        WebhookType::Rollback,
        WebhookType::Event,
    ];

    /// Name as in `spec.analysis.webhooks[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            WebhookType::ConfirmRollout => "confirm-rollout",
            WebhookType::PreRollout => "pre-rollout",
            WebhookType::Rollout => "rollout",
            WebhookType::ConfirmTrafficIncrease => "confirm-traffic-increase",
            WebhookType::ConfirmPromotion => "confirm-promotion",
            WebhookType::PostRollout => "post-rollout",
            WebhookType::Rollback => "rollback",
            WebhookType::Event => "event",
        }
    }
}
