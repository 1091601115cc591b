//! What a message to a chat says, whatever its form.

use serde_json::Value;

/// The canary (`podinfo.test`; empty if the message does not say it) and the text.
pub(super) fn read(body: &Value) -> (String, String) {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    // Google Chat, whose texts are HTML; Microsoft Teams; Slack and those that took its form over.
    if let Some(html) = text("/cards/0/sections/0/widgets/0/textParagraph/text") {
        return (text("/cards/0/header/subtitle").unwrap_or_default().to_owned(), without_markup(html));
    }
    let of = |author: &str, message: &str| Some((text(author)?.to_owned(), text(message)?.to_owned()));
    of("/sections/0/activitySubtitle", "/sections/0/activityTitle")
        .or_else(|| of("/attachments/0/author_name", "/attachments/0/text"))
        .unwrap_or_default()
}

fn without_markup(html: &str) -> String {
    let mut parts = html.split('<');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('>').map_or(part, |(_, text)| text));
    }
    // The ampersand last: what it makes is text.
    plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aviary_crds::validated::AlertSeverity;
    use aviary_providers::notify::{ALL, Alert, AlertTarget};

    use super::*;

    #[test]
    fn every_chat_is_read_as_it_was_written() {
        let alert = Alert {
            message: "success rate 90.00% < 99% & more > 1 &lt;".to_owned(),
            severity: AlertSeverity::Error,
            canary: "podinfo".to_owned(),
            namespace: "test".to_owned(),
            fields: vec![("Target".to_owned(), "Deployment/podinfo.test".to_owned())],
        };
        let target = AlertTarget {
            address: "http://chat.example/hook".to_owned(),
            channel: "general".to_owned(),
            username: "flagger".to_owned(),
            token: None,
            proxy: None,
        };
        for channel in ALL {
            let request = channel.request(&target, &alert).unwrap().unwrap();
            let body = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(read(&body), ("podinfo.test".to_owned(), alert.message.clone()), "{}", channel.name());
        }
    }
}
