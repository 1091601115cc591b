//! An HTTP request, as the programs that send some have it.

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::Refused;
use crate::flags::{HIDDEN, bad, shown};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Address, with a scheme of `http` or `https` and a host.
    pub url: Uri,
    /// Headers, without `Host`.
    pub headers: HeaderMap,
    /// The `Host` header, if it is not the address's.
    pub host: Option<HeaderValue>,
    /// Body.
    pub body: Vec<u8>,
    /// Name and password, from a flag.
    pub credentials: Option<(String, String)>,
}

impl Request {
    /// A GET of this address.
    pub(crate) fn get(program: &'static str, url: Option<&str>) -> Result<Request, Refused> {
        let url = url.ok_or(Refused::Missing { program, what: "there is no URL" })?;
        let parsed: Option<Uri> = url.parse().ok().filter(|url: &Uri| {
            url.host().is_some_and(|host| !host.is_empty()) && matches!(url.scheme_str(), Some("http" | "https"))
        });
        let url = parsed.ok_or_else(|| bad_url(program, url, "http://HOST[:PORT][/PATH] or https://"))?;
        Ok(Request {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            host: None,
            body: Vec::new(),
            credentials: None,
        })
    }

    pub(crate) fn set_method(&mut self, program: &'static str, flag: &'static str, text: &str) -> Result<(), Refused> {
        let method = Method::from_bytes(text.as_bytes()).ok();
        self.method = method.ok_or_else(|| bad(program, flag, text, "a method such as POST"))?;
        Ok(())
    }

    /// Adds `Name: value`.
    pub(crate) fn add_header(&mut self, program: &'static str, flag: &'static str, text: &str) -> Result<(), Refused> {
        let refused = || bad(program, flag, HIDDEN, "\"NAME: VALUE\"");
        let (name, value) = text.split_once(':').ok_or_else(refused)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refused())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| refused())?;
        if name == HOST {
            self.host = Some(value);
        } else {
            self.headers.append(name, value);
        }
        Ok(())
    }

    pub(crate) fn set_header(
        &mut self,
        program: &'static str,
        flag: &'static str,
        name: HeaderName,
        text: &str,
    ) -> Result<(), Refused> {
        let value = HeaderValue::from_str(text);
        let value = value.map_err(|_| bad(program, flag, HIDDEN, "a value that can be in a header"))?;
        self.headers.insert(name, value);
        Ok(())
    }

    pub(crate) fn set_host(&mut self, program: &'static str, flag: &'static str, text: &str) -> Result<(), Refused> {
        self.host = Some(HeaderValue::from_str(text).map_err(|_| bad(program, flag, text, "a host"))?);
        Ok(())
    }

    pub(crate) fn set_credentials(&mut self, text: &str) {
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        self.credentials = Some((name.to_owned(), password.to_owned()));
    }

    /// Says what the body is unless a header does.
    pub(crate) fn default_content_type(&mut self, content_type: &'static str) {
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    }

    /// Method and address without what may be secret.
    #[must_use]
    pub fn summary(&self) -> String {
        let (host, port) = self.destination();
        let (method, path) = (&self.method, self.url.path());
        format!("{method} {}://{host}:{port}{path}", self.url.scheme_str().unwrap_or("http"))
    }

    /// Host and port.
    #[must_use]
    pub fn destination(&self) -> (String, u16) {
        let default = if self.url.scheme_str() == Some("https") { 443 } else { 80 };
        (self.url.host().unwrap_or_default().to_owned(), self.url.port_u16().unwrap_or(default))
    }
}

/// An address that cannot be, shown without what may be secret: a query, and what is behind a space that was not quoted.
pub(crate) fn bad_url(program: &'static str, url: &str, expected: &'static str) -> Refused {
    let cut = url.find(|letter: char| letter.is_whitespace() || "?#".contains(letter));
    let value = match cut {
        // Before the @ there may be a password.
        _ if url.contains('@') => HIDDEN.to_owned(),
        Some(cut) if url[..cut].contains("://") => format!("{}…", &url[..cut]),
        None if url.contains("://") => url.to_owned(),
        _ => shown(url).to_owned(),
    };
    Refused::Value { program, flag: "the URL", value, expected }
}

/// Whether this is a host's name, and nothing that a client takes for an address: `[::1]`, `127.1`, `2130706433` and
/// `0x7f.1` are addresses to them (<https://url.spec.whatwg.org/#ends-in-a-number-checker>), and `%31` is a 1.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    name.split('.').all(is_label) && !is_number
}
