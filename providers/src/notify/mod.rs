//! Alert channels (`AlertProvider.spec.type`).

mod discord;
mod gchat;
mod msteams;
mod rocket;
mod slack;

use std::collections::BTreeMap;
use std::fmt;

use aviary_crds::AlertProvider;
use aviary_crds::validated::AlertSeverity;
use thiserror::Error;

pub use crate::http_request::HttpRequest;
pub use discord::Discord;
pub use gchat::GoogleChat;
pub use msteams::MicrosoftTeams;
pub use rocket::Rocket;
pub use slack::Slack;

/// Where alerts go.
#[derive(Clone, PartialEq, Eq)]
pub struct AlertTarget {
    /// Address of the incoming webhook; a secret in most chats. Empty means that nothing is sent.
    pub address: String,
    /// Channel.
    pub channel: String,
    /// Name of the sender.
    pub username: String,
    /// Bearer token (Slack).
    pub token: Option<String>,
    /// HTTP proxy to go through.
    pub proxy: Option<String>,
}

/// Shows neither address nor token.
impl fmt::Debug for AlertTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertTarget")
            .field("channel", &self.channel)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Why an AlertProvider cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotifyError {
    /// The referenced Secret lacks the mandatory key.
    #[error("secret does not contain an address")]
    NoAddress,
    /// No such channel.
    #[error("alert provider type {provider_type:?} is unknown; known: {}", known_names())]
    UnknownType {
        /// As given.
        provider_type: String,
    },
    /// A text cannot be sent as a header.
    #[error("token cannot be sent in a header")]
    BadToken,
    /// Slack and Rocket.Chat want both.
    #[error("{0} is empty")]
    Missing(&'static str),
}

impl AlertTarget {
    /// The target of an AlertProvider, with Flagger's defaults (`flagger`, `general`). `secret` is the data of the
    /// Secret that it references; its `address` wins.
    pub fn from_provider(
        provider: &AlertProvider,
        secret: Option<&BTreeMap<String, Vec<u8>>>,
    ) -> Result<AlertTarget, NotifyError> {
        let spec = &provider.spec;
        let text = |key: &str| {
            let bytes = secret?.get(key)?;
            Some(String::from_utf8_lossy(bytes).trim().to_owned())
        };
        let address = match secret {
            Some(_) => text("address").ok_or(NotifyError::NoAddress)?,
            None => spec.address.clone().unwrap_or_default(),
        };
        let or_default = |value: &Option<String>, default: &str| match value.as_deref() {
            None | Some("") => default.to_owned(),
            Some(value) => value.to_owned(),
        };
        Ok(AlertTarget {
            address,
            channel: or_default(&spec.channel, "general"),
            username: or_default(&spec.username, "flagger"),
            token: text("token"),
            proxy: spec.proxy.clone().filter(|proxy| !proxy.is_empty()),
        })
    }
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub message: String,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// Name of the canary.
    pub canary: String,
    /// Namespace of the canary.
    pub namespace: String,
    /// Titles and values of facts.
    pub fields: Vec<(String, String)>,
}

impl Alert {
    /// `<canary>.<namespace>`, shown as the author.
    fn author(&self) -> String {
        format!("{}.{}", self.canary, self.namespace)
    }

    fn is_error(&self) -> bool {
        self.severity == AlertSeverity::Error
    }
}

/// A chat that takes alerts.
pub trait Channel: Send + Sync {
    /// `AlertProvider.spec.type`.
    fn name(&self) -> &'static str;

    /// The request that posts an alert; `None` for a target without address. Any 2xx answer is a success.
    fn request(&self, target: &AlertTarget, alert: &Alert) -> Result<Option<HttpRequest>, NotifyError>;
}

/// All channels. Adding one is its file and a line here.
pub static ALL: &[&dyn Channel] = &[&Slack, &Discord, &MicrosoftTeams, &Rocket, &GoogleChat];

fn known_names() -> String {
    ALL.iter().map(|channel| channel.name()).collect::<Vec<_>>().join(", ")
}

/// The channel of this type.
pub fn for_type(provider_type: &str) -> Result<&'static dyn Channel, NotifyError> {
    ALL.iter()
        .find(|channel| channel.name() == provider_type)
        .copied()
        .ok_or_else(|| NotifyError::UnknownType { provider_type: provider_type.to_owned() })
}

/// Whether an alert that wants `wanted` is sent for an event of `severity`: `Info` takes all, `Warn` also takes errors.
pub fn wants(wanted: AlertSeverity, severity: AlertSeverity) -> bool {
    severity >= wanted
}

/// The part that all webhooks have in common.
fn post(target: &AlertTarget, url: String, body: &serde_json::Value) -> HttpRequest {
    let mut request = HttpRequest::post_json(url, body);
    request.proxy.clone_from(&target.proxy);
    request
}

#[cfg(test)]
mod tests;
