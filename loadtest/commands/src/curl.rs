//! `curl`: its usual flags, for one HTTP request.

use std::time::Duration;

use http::Method;
use http::header::{ACCEPT, COOKIE, REFERER, USER_AGENT};

use crate::flags::{self, Argument, Flag, HIDDEN, Style, Takes, bad, number};
use crate::request::bad_url;
use crate::{Refused, Request, seconds};

/// One HTTP request.
#[derive(Clone, Debug)]
pub struct Curl {
    /// What is sent.
    pub request: Request,
    /// A status of 400 and above is a failure (exit code 22).
    pub fails_on_errors: bool,
    /// The body is told also then.
    pub keeps_error_body: bool,
    /// Redirections that are followed.
    pub redirects: usize,
    /// Certificates are not looked at.
    pub is_insecure: bool,
    /// Time for everything.
    pub max_time: Option<Duration>,
    /// Time for the connection.
    pub connect_timeout: Option<Duration>,
    /// Further tries after a failure that may pass.
    pub retries: u32,
    /// The wait before each of them; without it 1 s, doubled each time.
    pub retry_delay: Option<Duration>,
    /// No further try begins after this time since the first one.
    pub retry_max_time: Option<Duration>,
    /// Also where the connection is refused.
    pub retries_refused: bool,
    /// After every failure.
    pub retries_everything: bool,
    /// Which HTTP.
    pub version: HttpVersion,
    /// Status line and headers are told before the body.
    pub tells_headers: bool,
    /// The body is thrown away (`-o /dev/null`).
    pub drops_body: bool,
    /// What is told behind the body.
    pub write_out: Vec<WritePart>,
}

/// Which HTTP a request is sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/2 where the server offers it over TLS.
    #[default]
    Negotiated,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without asking first.
    Http2,
}

/// A part of `-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WritePart {
    /// As it is.
    Text(String),
    /// `%{http_code}`: three digits, 000 without an answer.
    Status,
    /// `%{time_total}` in seconds.
    Time,
    /// `%{size_download}`: bytes of the body.
    Size,
    /// `%{url_effective}`: the address that was asked for first.
    Url,
}

const FILE: &str = ": it reads or writes a file of the load tester's image";
const PROXY: &str = ": proxies are not served";

const FLAGS: &[Flag] = &[
    Flag(&["s", "silent"], Takes::Nothing),
    Flag(&["S", "show-error"], Takes::Nothing),
    Flag(&["f", "fail"], Takes::Nothing),
    Flag(&["fail-with-body"], Takes::Nothing),
    Flag(&["L", "location"], Takes::Nothing),
    Flag(&["max-redirs"], Takes::Value),
    Flag(&["k", "insecure"], Takes::Nothing),
    Flag(&["v", "verbose"], Takes::Nothing),
    Flag(&["i", "include", "show-headers"], Takes::Nothing),
    Flag(&["I", "head"], Takes::Nothing),
    Flag(&["o", "output"], Takes::Value),
    Flag(&["O", "remote-name"], Takes::Refused(FILE)),
    Flag(&["w", "write-out"], Takes::Value),
    Flag(&["d", "data", "data-ascii"], Takes::Value),
    Flag(&["data-raw"], Takes::Value),
    Flag(&["data-binary"], Takes::Value),
    Flag(&["data-urlencode"], Takes::Value),
    Flag(&["json"], Takes::Value),
    Flag(&["F", "form"], Takes::Refused(": forms of several parts are not sent")),
    Flag(&["T", "upload-file"], Takes::Refused(FILE)),
    Flag(&["K", "config"], Takes::Refused(FILE)),
    Flag(&["H", "header"], Takes::Value),
    Flag(&["X", "request"], Takes::Value),
    Flag(&["A", "user-agent"], Takes::Value),
    Flag(&["e", "referer"], Takes::Value),
    Flag(&["u", "user"], Takes::Value),
    Flag(&["b", "cookie"], Takes::Value),
    Flag(&["c", "cookie-jar"], Takes::Refused(FILE)),
    Flag(&["m", "max-time"], Takes::Value),
    Flag(&["connect-timeout"], Takes::Value),
    Flag(&["retry"], Takes::Value),
    Flag(&["retry-delay"], Takes::Value),
    Flag(&["retry-max-time"], Takes::Value),
    Flag(&["retry-connrefused"], Takes::Nothing),
    Flag(&["retry-all-errors"], Takes::Nothing),
    Flag(&["http1.1"], Takes::Nothing),
    Flag(&["http2"], Takes::Nothing),
    Flag(&["http2-prior-knowledge"], Takes::Nothing),
    Flag(&["G", "get"], Takes::Nothing),
    Flag(&["url"], Takes::Value),
    Flag(&["x", "proxy"], Takes::Refused(PROXY)),
    Flag(&["N", "no-buffer"], Takes::Nothing),
    Flag(&["no-progress-meter"], Takes::Nothing),
    Flag(&["compressed"], Takes::Nothing),
    Flag(&["no-keepalive"], Takes::Nothing),
    Flag(&["q", "disable"], Takes::Nothing),
    Flag(&["g", "globoff"], Takes::Nothing),
];

const CURL: &str = "curl";

/// Redirections that curl follows with `-L`.
const REDIRECTS: usize = 50;

/// What comes from several flags.
#[derive(Default)]
struct Data {
    parts: Vec<String>,
    is_in_url: bool,
    is_json: bool,
    method: Option<String>,
    max_redirects: Option<usize>,
    follows: bool,
    is_head: bool,
}

pub(crate) fn parse(words: &[String]) -> Result<Curl, Refused> {
    let arguments = flags::read(CURL, Style::Getopt, FLAGS, words)?;
    let mut curl = Curl {
        request: Request::get(CURL, Some(&url(&arguments)?))?,
        fails_on_errors: false,
        keeps_error_body: false,
        redirects: 0,
        is_insecure: false,
        max_time: None,
        connect_timeout: None,
        retries: 0,
        retry_delay: None,
        retry_max_time: None,
        retries_refused: false,
        retries_everything: false,
        version: HttpVersion::default(),
        tells_headers: false,
        drops_body: false,
        write_out: Vec::new(),
    };
    let mut data = Data::default();
    for argument in &arguments {
        let Argument::Flag(name, value) = argument else { continue };
        curl.set(name, value, &mut data)?;
    }
    curl.finish(data)
}

/// The only address; curl takes http for granted.
fn url(arguments: &[Argument]) -> Result<String, Refused> {
    let word = flags::only_word(CURL, arguments)?;
    let mut flag = arguments.iter().filter_map(|argument| match argument {
        Argument::Flag("url", value) => Some(value.as_str()),
        _ => None,
    });
    let url = match (word, flag.next(), flag.next()) {
        (Some(url), None, None) | (None, Some(url), None) => url,
        (None, None, None) => return Err(Refused::Missing { program: CURL, what: "there is no URL" }),
        _ => return Err(Refused::Missing { program: CURL, what: "there is more than one address" }),
    };
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let takes_globs = !arguments.iter().any(|argument| matches!(argument, Argument::Flag("g", _)));
    let path = url.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find(['/', '?'])?..]));
    if takes_globs && path.is_some_and(|path| path.contains(['{', '}', '[', ']'])) {
        return Err(bad_url(
            CURL,
            &url,
            "braces and brackets only with -g: without it they stand for several requests",
        ));
    }
    Ok(url)
}

impl Curl {
    fn set(&mut self, flag: &'static str, value: &str, data: &mut Data) -> Result<(), Refused> {
        match flag {
            "f" => self.fails_on_errors = true,
            "fail-with-body" => (self.fails_on_errors, self.keeps_error_body) = (true, true),
            "L" => data.follows = true,
            "max-redirs" => {
                let most = number(CURL, "--max-redirs", value, 0..=100, "a number from 0 to 100")?;
                data.max_redirects = usize::try_from(most).ok();
            }
            "k" => self.is_insecure = true,
            "i" => self.tells_headers = true,
            "I" => data.is_head = true,
            "o" if value == "/dev/null" => self.drops_body = true,
            "o" => return Err(Refused::Flag { program: CURL, flag: "-o".to_owned(), why: FILE }),
            "w" => self.write_out = write_out(value)?,
            "d" | "data-binary" | "json" if value.starts_with('@') => {
                return Err(Refused::Flag { program: CURL, flag: format!("--{flag} @…"), why: FILE });
            }
            // As curl does with what it reads for -d: line ends are left out.
            "d" => data.parts.push(value.replace(['\r', '\n'], "")),
            "data-raw" | "data-binary" => data.parts.push(value.to_owned()),
            "data-urlencode" => data.parts.push(url_encoded(value)?),
            "json" => {
                data.is_json = true;
                data.parts.push(value.to_owned());
            }
            "H" => self.request.add_header(CURL, "-H", value)?,
            "X" => data.method = Some(value.to_owned()),
            "A" => self.request.set_header(CURL, "-A", USER_AGENT, value)?,
            "e" => self.request.set_header(CURL, "-e", REFERER, value)?,
            "u" => self.request.set_credentials(value),
            "b" if value.contains('=') => self.request.set_header(CURL, "-b", COOKIE, value)?,
            "b" => return Err(Refused::Flag { program: CURL, flag: "-b".to_owned(), why: FILE }),
            "m" => self.max_time = Some(seconds(CURL, "-m", value)?).filter(|time| !time.is_zero()),
            "connect-timeout" => {
                self.connect_timeout = Some(seconds(CURL, "--connect-timeout", value)?).filter(|time| !time.is_zero());
            }
            "retry" => {
                let retries = number(CURL, "--retry", value, 0..=1000, "a number from 0 to 1000")?;
                self.retries = u32::try_from(retries).unwrap_or(1000);
            }
            "retry-delay" => self.retry_delay = Some(seconds(CURL, "--retry-delay", value)?),
            "retry-max-time" => {
                self.retry_max_time = Some(seconds(CURL, "--retry-max-time", value)?).filter(|time| !time.is_zero());
            }
            "retry-connrefused" => self.retries_refused = true,
            "retry-all-errors" => self.retries_everything = true,
            "http1.1" => self.version = HttpVersion::Http1,
            "http2-prior-knowledge" => self.version = HttpVersion::Http2,
            "G" => data.is_in_url = true,
            // What they say is so anyway, or is about a terminal.
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, data: Data) -> Result<Curl, Refused> {
        if data.follows {
            self.redirects = data.max_redirects.unwrap_or(REDIRECTS);
        }
        if data.is_head {
            (self.request.method, self.tells_headers) = (Method::HEAD, true);
        }
        let is_sent = !data.parts.is_empty();
        if is_sent && data.is_in_url {
            self.request.url = with_query(&self.request.url, &data.parts.join("&"))?;
        } else if is_sent {
            self.request.method = Method::POST;
            self.request.body = data.parts.join(if data.is_json { "" } else { "&" }).into_bytes();
            self.request.default_content_type(match data.is_json {
                true => "application/json",
                false => "application/x-www-form-urlencoded",
            });
            if data.is_json && !self.request.headers.contains_key(ACCEPT) {
                self.request.set_header(CURL, "--json", ACCEPT, "application/json")?;
            }
        }
        if let Some(method) = data.method {
            self.request.set_method(CURL, "-X", &method)?;
        }
        // `-H 'Content-Type:'` and `-H 'Expect:'` take it off; an empty one would be sent.
        let headers = std::mem::take(&mut self.request.headers);
        let mut last_name = None;
        for (name, value) in headers {
            // Further values of a name come without it.
            last_name = name.or(last_name);
            if let Some(name) = last_name.clone().filter(|_| !value.is_empty()) {
                self.request.headers.append(name, value);
            }
        }
        Ok(self)
    }
}

fn with_query(url: &http::Uri, query: &str) -> Result<http::Uri, Refused> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    let text = format!("{url}{separator}{query}");
    text.parse().map_err(|_| bad(CURL, "-G", HIDDEN, "data that can be in a URL"))
}

/// `content`, `=content` or `name=content`, with the content encoded.
fn url_encoded(text: &str) -> Result<String, Refused> {
    let (name, content) = match text.split_once('=') {
        Some((name, content)) => (name, content),
        None if text.contains('@') => {
            return Err(Refused::Flag { program: CURL, flag: "--data-urlencode NAME@FILE".to_owned(), why: FILE });
        }
        None => ("", text),
    };
    let mut encoded = if name.is_empty() { String::new() } else { format!("{name}=") };
    for byte in content.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(encoded)
}

fn write_out(text: &str) -> Result<Vec<WritePart>, Refused> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("%{") {
        parts.push(WritePart::Text(unescaped(before)));
        let expected = "http_code, response_code, time_total, size_download, url_effective";
        let (name, behind) = behind.split_once('}').ok_or_else(|| bad(CURL, "-w", HIDDEN, expected))?;
        parts.push(match name {
            "http_code" | "response_code" => WritePart::Status,
            "time_total" => WritePart::Time,
            "size_download" => WritePart::Size,
            "url_effective" | "url" => WritePart::Url,
            _ => return Err(bad(CURL, "-w", name, expected)),
        });
        rest = behind;
    }
    parts.push(WritePart::Text(unescaped(rest)));
    parts.retain(|part| *part != WritePart::Text(String::new()));
    Ok(parts)
}

fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("%%", "%")
}
