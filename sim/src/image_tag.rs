//! What an image's tag says of how its containers behave, so that a manifest alone tells a scenario, here and wherever else
//! no containers run.

use std::time::Duration;

/// The words of a tag, `app:2.0.0-err10-slow300`: parts between dashes after the version. Everything else says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ImageTag {
    /// `err10`: this share of the requests fails, from 0 to 1.
    pub error_ratio: Option<f64>,
    /// `slow300`: an answer takes so many milliseconds.
    pub latency: Option<Duration>,
    /// `start5`: ready so many seconds after the start.
    pub start_delay: Option<Duration>,
    /// `unready`: runs, and is never ready.
    pub is_unready: bool,
    /// `crash`: ends with an error soon after each start.
    pub crashes: bool,
}

impl ImageTag {
    /// Reads the tag of an image reference.
    #[must_use]
    pub fn of_image(image: &str) -> ImageTag {
        ImageTag::of_tag(tag(image))
    }

    /// Reads a tag.
    #[must_use]
    pub fn of_tag(tag: &str) -> ImageTag {
        let mut read = ImageTag::default();
        for part in tag.split('-').skip(1) {
            if let Some(percent) = number(part, "err") {
                read.error_ratio = Some(f64::from(percent.min(100)) / 100.0);
            } else if let Some(milliseconds) = number(part, "slow") {
                read.latency = Some(Duration::from_millis(milliseconds.into()));
            } else if let Some(seconds) = number(part, "start") {
                read.start_delay = Some(Duration::from_secs(seconds.into()));
            }
            read.is_unready |= part == "unready";
            read.crashes |= part == "crash";
        }
        read
    }
}

fn number(part: &str, prefix: &str) -> Option<u32> {
    part.strip_prefix(prefix)?.parse().ok()
}

/// The tag of an image reference; empty where it has none. A colon before the last slash belongs to the registry's port.
#[must_use]
pub fn tag(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split('@').next().unwrap_or(name);
    name.split_once(':').map_or("", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_tag() {
        assert_eq!(ImageTag::of_image("registry:5000/app"), ImageTag::default());
        assert_eq!(ImageTag::of_image("app:err10"), ImageTag::default(), "the version itself is no behaviour");
        assert_eq!(ImageTag::of_image("app:2-error-slowly-started-crashed"), ImageTag::default());
        let read = ImageTag::of_image("registry:5000/app:2.0.0-err10-slow300-start5-unready-crash@sha256:0");
        let expected = ImageTag {
            error_ratio: Some(0.1),
            latency: Some(Duration::from_millis(300)),
            start_delay: Some(Duration::from_secs(5)),
            is_unready: true,
            crashes: true,
        };
        assert_eq!(read, expected);
        assert_eq!(ImageTag::of_tag("2-err250").error_ratio, Some(1.0));
    }
}
