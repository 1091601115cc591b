//! Addresses of chats are passwords; neither log nor event tells them, nor what a chat answers.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::{Answer, Chat, begin, provider, world_with};
use crate::support::in_virtual_time;

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

#[test]
fn no_secret_of_a_chat_is_told() {
    let log = Log::default();
    let filter = "debug,aviary_actors=trace,aviary_providers=trace";
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    in_virtual_time(async {
        let chat = Chat::default();
        let mut world = world_with(&chat);
        for (path, answer) in [("hunter2a", Answer::Status(400)), ("hunter2b", Answer::Never)] {
            chat.answer(path, answer);
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "test", "name": "chat"},
            "stringData": {"address": "http://chat.test/hunter2a", "token": "hunter2\u{1}"},
        });
        world.create(secret).await;
        let spec = json!({"type": "rocket", "address": "http://user:hunter2@chat.test/hunter2b"});
        world.create(provider("direct", &spec)).await;
        world.create(provider("refused", &json!({"type": "gchat", "secretRef": {"name": "chat"}}))).await;
        world.create(provider("bad-token", &json!({"type": "slack", "secretRef": {"name": "chat"}}))).await;
        let nowhere =
            json!({"type": "slack", "address": "http://nowhere.test/hunter2", "proxy": "http://u:hunter2@p.test"});
        world.create(provider("unreachable", &nowhere)).await;
        world.config.event_webhook = Some("http://nowhere.test/hunter2?token=hunter2".to_owned());
        begin(&mut world, |canary| {
            let names = ["direct", "refused", "bad-token", "unreachable"];
            canary["spec"]["analysis"]["alerts"] =
                names.iter().map(|name| json!({"name": name, "providerRef": {"name": name}})).collect();
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(120)).await;
        assert!(!world.story().contains("hunter2"), "{}", world.story());
        assert!(!world.metrics().contains("hunter2"));
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for part in
        ["alert can't be sent: bad response 400", "token cannot be sent in a header", "error sending event to webhook"]
    {
        assert!(log.contains(part), "{part} was not logged:\n{log}");
    }
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains("hunter2")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
