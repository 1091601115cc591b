//! `curl`.

use std::io::ErrorKind;
use std::time::Duration;

use aviary_load_commands::{Curl, WritePart};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use reqwest::Response;
use tokio::time::Instant;

use super::Context;
use super::client::{How, SendError, Sender, found_in, tls_error};
use super::outcome::{Outcome, append};
use super::redirects::NoRedirect;
use super::targets::Unresolved;

/// First and longest wait before a further try, as curl has them.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// curl's exit codes (<https://curl.se/libcurl/c/libcurl-errors.html>), as far as there are such ends here.
mod exit {
    pub(super) const PROTOCOL: i32 = 1;
    pub(super) const SET_UP: i32 = 3;
    pub(super) const RESOLVE: i32 = 6;
    pub(super) const CONNECT: i32 = 7;
    pub(super) const PARTIAL: i32 = 18;
    pub(super) const HTTP_ERROR: i32 = 22;
    pub(super) const TIMEOUT: i32 = 28;
    pub(super) const TLS: i32 = 35;
    pub(super) const REDIRECTS: i32 = 47;
    pub(super) const NOTHING: i32 = 52;
    pub(super) const RECEIVE: i32 = 56;
    pub(super) const CERTIFICATE: i32 = 60;
}

/// What one try came to.
struct Try {
    outcome: Outcome,
    may_pass: bool,
    /// A wait before the next one that the server asks for.
    asked_wait: Option<Duration>,
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
    let begun = Instant::now();
    let mut wait = FIRST_WAIT;
    let mut retries = curl.retries;
    loop {
        let Try { outcome, may_pass, asked_wait } = ask(curl, &sender, context).await;
        if retries == 0 || !(may_pass || curl.retries_everything && !outcome.is_success()) {
            return outcome;
        }
        let own_wait = curl.retry_delay.filter(|delay| !delay.is_zero()).unwrap_or(wait);
        let asked_wait = asked_wait.unwrap_or_default();
        // The own wait may go beyond the limit, for then the try after it is the last one; what a server asks for may not.
        let took = begun.elapsed();
        if curl.retry_max_time.is_some_and(|most| took >= most || took.saturating_add(asked_wait) > most) {
            return outcome;
        }
        retries -= 1;
        tokio::time::sleep(own_wait.max(asked_wait)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn ask(curl: &Curl, sender: &Sender, context: &Context) -> Try {
    let begun = Instant::now();
    let mut asked_wait = None;
    let (answer, size) = match sender.send().await {
        Ok(response) => {
            asked_wait = retry_after(response.headers());
            let (answer, size) = read(curl, response).await;
            (answer.map_err(|error| (body_exit(&error), error.into())), size)
        }
        Err(error) => (Err((exit_of(&error), error)), 0),
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
            let may_pass = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
            Try { outcome, may_pass, asked_wait: asked_wait.filter(|_| may_pass) }
        }
        Err((exit_code, error)) => {
            let may_pass = matches!(exit_code, exit::TIMEOUT | exit::RESOLVE)
                || exit_code == exit::CONNECT && curl.retries_refused && is_refused(&error);
            Try { outcome: Outcome::failed(exit_code, format!("curl: {error}")), may_pass, asked_wait: None }
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

/// What curl ends with where there is no answer.
fn exit_of(error: &SendError) -> i32 {
    match error {
        // curl knows no bounds; a redirection out of them ends as one too many does.
        SendError::Redirect(NoRedirect::TooMany) | SendError::Forbidden(_) => exit::REDIRECTS,
        SendError::Redirect(NoRedirect::Scheme) => exit::PROTOCOL,
        SendError::Redirect(NoRedirect::Location) => exit::SET_UP,
        SendError::Http(error) if error.is_timeout() => exit::TIMEOUT,
        SendError::Http(error) if error.is_connect() => match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(_)) => exit::CERTIFICATE,
            Some(_) => exit::TLS,
            None if found_in::<Unresolved>(error).is_some() => exit::RESOLVE,
            None => exit::CONNECT,
        },
        SendError::Http(error) => match found_in::<hyper::Error>(error) {
            Some(error) if error.is_incomplete_message() => exit::NOTHING,
            Some(error) if error.is_parse() => exit::PROTOCOL,
            _ => exit::RECEIVE,
        },
    }
}

/// What curl ends with where an answer breaks off.
fn body_exit(error: &reqwest::Error) -> i32 {
    if error.is_timeout() {
        return exit::TIMEOUT;
    }
    let is_end = found_in::<std::io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof);
    if is_end { exit::PARTIAL } else { exit::RECEIVE }
}

fn is_refused(error: &SendError) -> bool {
    let SendError::Http(error) = error else { return false };
    found_in::<std::io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The seconds of a `Retry-After`. A date there is passed over, since a task that takes hours ends at its time limit anyway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
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
