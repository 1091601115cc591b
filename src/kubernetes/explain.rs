//! What went wrong on the way to the cluster, in one line without secrets.
//!
//! The libraries quote what they could not read: a kubeconfig with its tokens, the output of a credential plugin. None of
//! that is repeated here.

use std::error::Error;
use std::io;

use kube::client::AuthError;
use kube::config::KubeconfigError;

use crate::one_line;

/// Why a kubeconfig cannot be used: line, column and reason, never its content.
pub(super) fn kubeconfig(error: KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => yaml(&error),
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        error => one_line(&error.into()),
    }
}

/// Where a YAML text cannot be read, and why, in words that do not depend on the text.
fn yaml(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;
    let reason = match error.without_snippet() {
        Yaml::SerdeMissingField { field, .. } => format!("field {field} is missing"),
        Yaml::SerdeInvalidType { expected, .. } | Yaml::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected}")
        }
        Yaml::InvalidScalar { ty, .. } => format!("expected {ty}"),
        Yaml::Unexpected { expected, .. } => format!("expected {expected}"),
        Yaml::DuplicateMappingKey { .. } => "a key stands there twice".to_owned(),
        Yaml::Eof { .. } => "the file ends too early".to_owned(),
        Yaml::Message { msg, .. } => without_quotes(msg),
        _ => "not valid YAML, or not that of a kubeconfig".to_owned(),
    };
    match error.location() {
        Some(place) => format!("line {}, column {}: {reason}", place.line(), place.column()),
        None => reason,
    }
}

/// A message without what stands between its first and its last quotation mark, which may be a value.
fn without_quotes(message: &str) -> String {
    let is_quote = |character: char| matches!(character, '"' | '\'' | '`');
    let line = match (message.find(is_quote), message.rfind(is_quote)) {
        (Some(first), Some(last)) => format!("{}…{}", &message[..first], &message[last + 1..]),
        _ => message.to_owned(),
    };
    line.lines().next().unwrap_or_default().to_owned()
}

/// Why a call to the API server failed.
pub(super) fn call(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => api(status.code, &status.message),
        error => root(error),
    }
}

/// `403 Forbidden: …`, with the server's message if it says more than the code.
fn api(code: u16, message: &str) -> String {
    let reason = http::StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let title = format!("{code} {reason}");
    // The API server tells a stranger nothing but `Unauthorized`.
    let message = if code == 401 { "the token or certificate was refused" } else { message };
    match message.lines().next().map(str::trim) {
        None | Some("") => title.trim_end().to_owned(),
        Some(message) => format!("{}: {message}", title.trim_end()),
    }
}

/// The innermost cause: what stands around it names layers of the client.
fn root(error: &(dyn Error + 'static)) -> String {
    if let Some(auth) = error.downcast_ref::<AuthError>() {
        return credentials(auth);
    }
    // What an I/O error wraps is not its source.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source()) {
        Some(cause) => root(cause),
        None => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Why there are no credentials. The output of a plugin holds a token where it worked, and maybe where it did not.
fn credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, out } => {
            format!("credential plugin {cmd} failed with {}; run it by hand to see why", out.status)
        }
        AuthError::AuthExecParse(error) => {
            format!("the answer of the credential plugin cannot be read: {}", yaml(error))
        }
        AuthError::AuthExecStart(error) => format!("start the credential plugin: {error}"),
        AuthError::ReadTokenFile(error, path) => format!("read the token file {}: {error}", path.display()),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const TOKEN: &str = "s3cr3t-t0k3n";

    #[test]
    fn what_cannot_be_read_is_located_and_never_shown() {
        for text in [
            "apiVersion: v1\nusers:\n- name: me\n  user:\n    token: TOKEN\n   client-key: x\n",
            "apiVersion: v1\nusers:\n- name: me\n  user: TOKEN\n",
            "apiVersion: v1\nusers: TOKEN\n",
            "apiVersion: v1\nclusters:\n- name: c\n  cluster:\n    insecure-skip-tls-verify: TOKEN\n",
            "apiVersion: v1\nusers:\n- name: me\n  user:\n    token: \"TOKEN\n",
            "apiVersion: v1\nTOKEN: 1\nTOKEN: 2\n",
            "apiVersion: v1\nusers:\n- user: {token: TOKEN}\n",
            "TOKEN",
        ] {
            let error = kube::config::Kubeconfig::from_yaml(&text.replace("TOKEN", TOKEN));
            let explained = kubeconfig(error.expect_err(text));
            assert!(!explained.contains(TOKEN) && explained.lines().count() == 1, "{text}: {explained}");
            assert!(explained.starts_with("line ") && explained.contains(", column "), "{text}: {explained}");
        }
    }

    #[test]
    fn messages_lose_what_they_quote() {
        assert_eq!(
            without_quotes("invalid value: string \"a\\\"b\", expected x"),
            "invalid value: string …, expected x"
        );
        assert_eq!(without_quotes("unknown variant `a`, expected `b` or `c`"), "unknown variant …");
        assert_eq!(without_quotes("block mapping ends\nafter"), "block mapping ends");
    }

    #[test]
    fn answers_of_the_api_are_told_once() {
        assert_eq!(api(401, "Unauthorized"), "401 Unauthorized: the token or certificate was refused");
        assert_eq!(api(403, "no canaries for you"), "403 Forbidden: no canaries for you");
        assert_eq!(api(500, ""), "500 Internal Server Error");
    }

    #[test]
    fn the_output_of_a_credential_plugin_is_not_told() {
        let out = std::process::Command::new("false").output().unwrap();
        let out = Box::new(std::process::Output { stdout: TOKEN.into(), ..out });
        let auth = AuthError::AuthExecRun { cmd: "aws".into(), out };
        let explained = call(&kube::Error::Service(Box::new(io::Error::other(auth))));
        assert!(explained.contains("aws failed with") && !explained.contains(TOKEN), "{explained}");
    }
}
