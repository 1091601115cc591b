//! `hey` and `wrk`.

use std::sync::Arc;

use aviary_load_commands::{HttpLoad, HttpVersion};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Context;
use super::client::{How, SendError, Sender};
use super::outcome::Outcome;
use super::pace::{Pace, Record, drive};

/// Redirections that hey follows, as Go's client does.
const REDIRECTS: usize = 10;

/// Sends the requests, until it is enough or the time limit is over, and tells what became of them. As with the real ones
/// the end is good whatever the answers were: they are for the canary's metrics to judge.
pub(super) async fn run(load: &HttpLoad, context: &Context) -> Outcome {
    let how = How {
        version: if load.is_http2 { HttpVersion::Negotiated } else { HttpVersion::Http1 },
        timeout: load.timeout,
        connect_timeout: None,
        redirects: if load.follows_redirects { REDIRECTS } else { 0 },
        keeps_alive: load.keeps_alive,
        // As hey has it.
        is_insecure: true,
    };
    let sender = match Sender::new(&load.request, &how, &context.targets) {
        Ok(sender) => sender,
        Err(error) => return Outcome::failed(1, error.to_string()),
    };
    let requests = context.metrics.requests.clone();
    let program = load.program;
    let send = move || {
        let (sender, requests) = (sender.clone(), requests.clone());
        async move {
            let end = exchange(&sender).await;
            let code = if end.len() == 3 { end.as_str() } else { "error" };
            requests.with_label_values(&[program, code]).inc();
            end
        }
    };
    let pace = Pace { workers: load.workers, per_second: load.requests_per_second(), amount: load.amount };
    let record = Arc::new(Mutex::new(Record::default()));
    let begun = Instant::now();
    let end = tokio::time::timeout(context.timeout, drive(pace, &record, send)).await;
    let report = record.lock().report(begun.elapsed());
    let error = if end.is_err() { "ended at the time limit (-timeout)".to_owned() } else { String::new() };
    Outcome { exit_code: 0, output: report.into_bytes(), error }
}

/// One request; the status, once the whole answer has come.
async fn exchange(sender: &Sender) -> String {
    let answer = async {
        let mut response = sender.send().await?;
        // Read and dropped: nothing of it is kept.
        while response.chunk().await?.is_some() {}
        Ok::<_, SendError>(response.status().as_str().to_owned())
    };
    answer.await.unwrap_or_else(|error| error.to_string())
}
