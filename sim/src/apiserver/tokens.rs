//! `serviceaccounts/NAME/token`: what `kubectl create token` asks for (`pkg/registry/core/serviceaccount/storage/token.go`).
//!
//! The token is a JSON Web Token with the claims of a real one but without a signature, and says so (`"alg": "none"`): nobody
//! checks it, for everybody may do everything.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::ApiServer;
use super::request::Target;
use super::response::Answer;
use super::write::{Body, decode_body};
use crate::store::{FieldError, StatusError, kinds, to_bytes};

/// The audience of tokens that ask for none, and their issuer.
const ISSUER: &str = "https://kubernetes.default.svc";
/// `spec.expirationSeconds` where a request has none.
const DEFAULT_SECONDS: i64 = 3600;
/// Ten minutes, the shortest life that `ValidateTokenRequest` allows.
const SHORTEST_SECONDS: i64 = 600;

impl ApiServer {
    pub(super) fn create_token(&self, target: &Target, name: &str, body: &Body<'_>) -> Result<Answer, StatusError> {
        let account = self
            .store
            .get(&kinds::SERVICE_ACCOUNT, &target.namespace, name)
            .ok_or_else(|| StatusError::not_found(&target.resource, name))?;
        let (request, _) = decode_body(body, true)?;
        let spec = &request["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        if seconds < SHORTEST_SECONDS {
            let problem = FieldError::invalid(
                "spec.expirationSeconds",
                &json!(seconds),
                "may not specify a duration less than 10 minutes",
            );
            return Err(StatusError::invalid("authentication.k8s.io", "TokenRequest", "", &[problem]));
        }
        let audiences = match spec["audiences"].as_array() {
            Some(audiences) if !audiences.is_empty() => json!(audiences),
            _ => json!([ISSUER]),
        };
        let bound = self.bound_object(target, &account, &spec["boundObjectRef"])?;
        let now = self.store.clock().now();
        let expires = now.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
        let mut scope = json!({
            "namespace": target.namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        });
        if let Some((kind, object)) = bound {
            scope[kind] = object;
        }
        let claims = json!({
            "aud": audiences, "exp": expires.as_second(), "iat": now.as_second(), "iss": ISSUER, "kubernetes.io": scope,
            "nbf": now.as_second(), "sub": format!("system:serviceaccount:{}:{name}", target.namespace),
        });
        let header = json!({"alg": "none", "typ": "JWT"});
        let token = format!("{}.{}.", base64_url(&header), base64_url(&claims));
        let answer = json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name, "namespace": target.namespace, "uid": account["metadata"]["uid"],
                "creationTimestamp": crate::clock::format_seconds(now),
            },
            "spec": {
                "audiences": audiences, "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef").cloned().unwrap_or_default(),
            },
            "status": {"token": token, "expirationTimestamp": crate::clock::format_seconds(expires)},
        });
        Ok(Answer::json(201, to_bytes(&answer)))
    }

    /// The claim that names the object with which the token ends, under its name.
    fn bound_object(
        &self,
        target: &Target,
        account: &Value,
        reference: &Value,
    ) -> Result<Option<(&'static str, Value)>, StatusError> {
        let (kind, claim) = match reference["kind"].as_str() {
            None => return Ok(None),
            Some("Pod") => (kinds::POD, "pod"),
            Some("Secret") => (kinds::SECRET, "secret"),
            Some("Node") => (kinds::NODE, "node"),
            Some(other) => {
                let message = format!("cannot bind token for serviceaccount to object of type {other}");
                return Err(StatusError::bad_request(message));
            }
        };
        let name = reference["name"].as_str().unwrap_or_default();
        let namespace = if claim == "node" { "" } else { &*target.namespace };
        let missing = || match self.store.resource_type(&kind) {
            Ok(resource) => StatusError::not_found(&resource, name),
            Err(error) => error,
        };
        let object = self.store.get(&kind, namespace, name).ok_or_else(missing)?;
        let account_name = &account["metadata"]["name"];
        if claim == "pod" && object["spec"]["serviceAccountName"] != *account_name {
            return Err(StatusError::bad_request(format!(
                "cannot bind token for serviceaccount {account_name} to pod running with different serviceaccount name."
            )));
        }
        Ok(Some((claim, json!({"name": name, "uid": object["metadata"]["uid"]}))))
    }
}

/// base64url without padding, as JSON Web Tokens have it.
fn base64_url(value: &Value) -> String {
    let encoded = json!(ByteString(to_bytes(value).to_vec()));
    let text = encoded.as_str().unwrap_or_default();
    text.trim_end_matches('=').replace('+', "-").replace('/', "_")
}
