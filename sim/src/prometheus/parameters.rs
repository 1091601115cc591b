//! Parameters of requests: query strings, forms and times.

use aviary_promql::api::ApiError;
use jiff::Timestamp;

/// Seconds since the epoch, with or without decimals, or RFC 3339; in milliseconds.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn parse_time(name: &str, text: &str) -> Result<i64, ApiError> {
    // Ten thousand years on both sides: sums of times and durations stay far from overflow.
    const LIMIT_SECONDS: f64 = 3.2e11;
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| seconds.abs() < LIMIT_SECONDS) {
        return Ok((seconds * 1000.0).round() as i64);
    }
    let refuse =
        |_| ApiError::bad_data(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"));
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(refuse)
}

/// The fields of a query string or a form.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    pub(super) fn parse(encoded: &str) -> Self {
        let pairs = encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// Puts the fields of a form before those of the query string, as Go's `FormValue` does.
    pub(super) fn prefer(&mut self, form: &str) {
        let Self { mut pairs } = Self::parse(form);
        pairs.append(&mut self.pairs);
        self.pairs = pairs;
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(candidate, value)| candidate == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a field that may be given several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes `application/x-www-form-urlencoded`. A percent sign that begins no escape stands for itself.
pub(super) fn decode(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match (escaped, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (None, b'+') => {
                bytes.push(b' ');
                rest = tail;
            }
            (None, byte) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
