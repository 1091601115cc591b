//! `curl`.

use std::time::Duration;

use aviary_load_commands::{Curl, WritePart};
use reqwest::Response;
use tokio::time::Instant;

use super::Context;
use super::client::{How, Sender, tls_error, why};
use super::outcome::{Outcome, append};

/// First and longest wait before a further try, as curl has them.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// curl's exit codes.
mod exit {
    pub(super) const SET_UP: i32 = 3;
    pub(super) const CONNECT: i32 = 7;
    pub(super) const HTTP_ERROR: i32 = 22;
    pub(super) const TIMEOUT: i32 = 28;
    pub(super) const TLS: i32 = 35;
    pub(super) const REDIRECTS: i32 = 47;
    pub(super) const RECEIVE: i32 = 56;
    pub(super) const CERTIFICATE: i32 = 60;
}

/// What one try came to.
struct Try {
    outcome: Outcome,
    may_pass: bool,
}

pub(super) async fn run(curl: &Curl, context: &Context) -> Outcome {
    let how = How {
        version: curl.version,
        timeout: curl.max_time,
        connect_timeout: curl.connect_timeout,
        redirects: curl.redirects,
        keeps_alive: true,
        is_insecure: curl.is_insecure,
    };
    let sender = match Sender::new(&curl.request, &how, &context.targets) {
        Ok(sender) => sender,
        Err(error) => return Outcome::failed(exit::SET_UP, format!("curl: {error}")),
    };
    let mut wait = FIRST_WAIT;
    let mut retries = curl.retries;
    loop {
        let Try { outcome, may_pass } = ask(curl, &sender, context).await;
        if retries == 0 || !(may_pass || curl.retries_everything && !outcome.is_success()) {
            return outcome;
        }
        retries -= 1;
        tokio::time::sleep(curl.retry_delay.filter(|delay| !delay.is_zero()).unwrap_or(wait)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn ask(curl: &Curl, sender: &Sender, context: &Context) -> Try {
    let begun = Instant::now();
    let (answer, size) = match sender.send().await {
        Ok(response) => read(curl, response).await,
        Err(error) => (Err(error), 0),
    };
    let code = answer.as_ref().map_or("error", |(status, _)| status.as_str()).to_owned();
    context.metrics.requests.with_label_values(&["curl", &code]).inc();
    let mut tried = match answer {
        Ok((status, output)) => {
            let has_failed = curl.fails_on_errors && status.as_u16() >= 400;
            let outcome = Outcome {
                exit_code: if has_failed { exit::HTTP_ERROR } else { 0 },
                output,
                error: if has_failed {
                    format!("curl: the server answered {}", status.as_u16())
                } else {
                    String::new()
                },
            };
            Try { outcome, may_pass: matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) }
        }
        Err(error) => {
            let exit_code = match &error {
                error if error.is_timeout() => exit::TIMEOUT,
                error if error.is_redirect() => exit::REDIRECTS,
                error if error.is_connect() => match tls_error(error) {
                    Some(rustls::Error::InvalidCertificate(_)) => exit::CERTIFICATE,
                    Some(_) => exit::TLS,
                    None => exit::CONNECT,
                },
                _ => exit::RECEIVE,
            };
            let may_pass = exit_code == exit::TIMEOUT || exit_code == exit::CONNECT && curl.retries_refused;
            Try { outcome: Outcome::failed(exit_code, format!("curl: {}", why(&error))), may_pass }
        }
    };
    let status = if code == "error" { "000" } else { code.as_str() };
    for part in &curl.write_out {
        let text = match part {
            WritePart::Text(text) => text.clone(),
            WritePart::Status => status.to_owned(),
            WritePart::Time => format!("{:.6}", begun.elapsed().as_secs_f64()),
            WritePart::Size => size.to_string(),
            WritePart::Url => curl.request.url.to_string(),
        };
        append(&mut tried.outcome.output, text.as_bytes());
    }
    tried
}

type Answer = reqwest::Result<(http::StatusCode, Vec<u8>)>;

/// The answer as curl writes it, and the size of its body.
async fn read(curl: &Curl, mut response: Response) -> (Answer, usize) {
    let status = response.status();
    let mut output = Vec::new();
    if curl.tells_headers {
        let reason = status.canonical_reason().unwrap_or_default();
        append(&mut output, format!("{:?} {} {reason}\r\n", response.version(), status.as_u16()).as_bytes());
        for (name, value) in response.headers() {
            append(&mut output, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        append(&mut output, b"\r\n");
    }
    let keeps = !curl.drops_body && (!curl.fails_on_errors || status.as_u16() < 400 || curl.keeps_error_body);
    let mut size = 0;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                size += chunk.len();
                if keeps {
                    append(&mut output, &chunk);
                }
            }
            Ok(None) => return (Ok((status, output)), size),
            Err(error) => return (Err(error), size),
        }
    }
}
