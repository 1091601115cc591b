//! Session affinity: the routes that keep clients on their side by a cookie.
//!
//! While the canary has weight, requests with its cookie go to it, those with the primary's cookie (if there is one) to the
//! primary, and all others by weight, with an answer that sets the cookie. Without weight, holders of the last run's
//! cookie are told to drop it.

use std::collections::BTreeMap;
use std::fmt::Write;

use aviary_crds::service::{HttpMatchRequest, StringMatch};
use aviary_crds::validated::ValidatedSessionAffinity;
use aviary_rollout::{Cookie, Cookies, Split};
use serde_json::{Map, Value, json};

use super::routes::{Sides, destination, http_route, merged, weighted};
use crate::Subject;

/// The routes for a split; those that depend on cookies come first.
pub(super) fn render(
    subject: &Subject,
    sides: &Sides,
    split: Split,
    affinity: &ValidatedSessionAffinity,
    cookies: &Cookies,
) -> Vec<Value> {
    let service = &subject.canary.service;
    if split.canary == 0 {
        let by_weight = http_route(subject, &service.matches, weighted(subject, sides, split));
        let Some(former) = &cookies.former else { return vec![by_weight] };
        let mut forget = http_route(subject, &holders_of(subject, former), weighted(subject, sides, split));
        add_cookie(&mut forget, &set_cookie(affinity, former, -1));
        return vec![forget, by_weight];
    }
    let sticky = |cookie: &Cookie, canary: u32| {
        http_route(subject, &holders_of(subject, cookie), weighted(subject, sides, Split::to_canary(canary)))
    };
    let mut routes = vec![sticky(&cookies.canary, 100)];
    let mut primary = destination(subject, &sides.primary, split.primary);
    let mut canary = destination(subject, &sides.canary, split.canary);
    add_cookie(&mut canary, &set_cookie(affinity, &cookies.canary, seconds(affinity.max_age)));
    if let Some(cookie) = &cookies.primary {
        routes.push(sticky(cookie, 0));
        // So that nobody is kept from the canary for longer than a step.
        let age = seconds(subject.canary.analysis.interval);
        add_cookie(&mut primary, &set_cookie(affinity, cookie, age));
    }
    routes.push(http_route(subject, &service.matches, vec![primary, canary]));
    routes
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The service's own conditions, for requests that carry this cookie.
fn holders_of(subject: &Subject, cookie: &Cookie) -> Vec<HttpMatchRequest> {
    let regex = format!(".*{}.*{}.*", escaped(&cookie.name), escaped(&cookie.value));
    let condition = HttpMatchRequest {
        headers: BTreeMap::from([("Cookie".to_owned(), StringMatch { regex: Some(regex), ..StringMatch::default() })]),
        ..HttpMatchRequest::default()
    };
    merged(&[condition], &subject.canary.service.matches)
}

/// Names of cookies may hold characters that mean something in a regular expression.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The attributes are in Flagger's order. They go along when a cookie is taken back, too: a browser drops only the cookie
/// with the same domain and path (Flagger leaves them out there).
fn set_cookie(affinity: &ValidatedSessionAffinity, cookie: &Cookie, max_age: i64) -> String {
    let mut text = format!("{cookie}; Max-Age={max_age}");
    let mut attribute = |name: &str, value: Option<&str>| {
        // Writing to a string cannot fail.
        let _ = match value {
            Some(value) => write!(text, "; {name}={value}"),
            None => write!(text, "; {name}"),
        };
    };
    if let Some(domain) = &affinity.domain {
        attribute("Domain", Some(domain));
    }
    if affinity.http_only {
        attribute("HttpOnly", None);
    }
    if affinity.partitioned {
        attribute("Partitioned", None);
    }
    if let Some(path) = &affinity.path {
        attribute("Path", Some(path));
    }
    if let Some(same_site) = &affinity.same_site {
        attribute("SameSite", Some(same_site));
    }
    if affinity.secure {
        attribute("Secure", None);
    }
    text
}

/// Adds a `Set-Cookie` to the answers of a route or of a destination, beside whatever else is done to their headers.
fn add_cookie(entry: &mut Value, cookie: &str) {
    let mut at = entry;
    for field in ["headers", "response", "add"] {
        if !at.get(field).is_some_and(Value::is_object) {
            at[field] = Value::Object(Map::new());
        }
        at = &mut at[field];
    }
    at["Set-Cookie"] = json!(cookie);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

    use super::*;
    use crate::object::kinds;
    use crate::testing::World;
    use crate::traffic::{Istio, TrafficProvider};

    fn cookie(name: &str, value: &str) -> Cookie {
        Cookie { name: name.into(), value: value.into() }
    }

    fn world(more: Value, former: Option<Cookie>) -> World {
        let mut analysis = json!({
            "interval": "15s",
            "sessionAffinity": {"cookieName": "canary-ck", "primaryCookieName": "primary-ck"},
        });
        crate::testing::merge(&mut analysis["sessionAffinity"], &more);
        let mut world = World::new(json!({"analysis": analysis}));
        let primary = world.canary.sessions().and_then(|affinity| affinity.primary_cookie_name.clone());
        world.cookies = Some(Cookies {
            canary: cookie("canary-ck", "AAAAAAAAAA"),
            primary: primary.map(|name| cookie(&name, "BBBBBBBBBB")),
            former,
        });
        world
    }

    fn set(world: &mut World, split: Split) -> Value {
        if Istio.observed(&world.subject()).is_err() {
            world.apply(Istio.reconcile(&world.subject(), Split::PRIMARY).unwrap());
        }
        world.apply(Istio.set(&world.subject(), split).unwrap());
        assert_eq!(Istio.set(&world.subject(), split), Ok(vec![]), "idempotent");
        assert_eq!(Istio.observed(&world.subject()), Ok(split));
        assert_eq!(Istio.reconcile(&world.subject(), Split::PRIMARY), Ok(vec![]), "no drift");
        world.json(&kinds::VIRTUAL_SERVICE, "podinfo")["spec"]["http"].clone()
    }

    fn to(host: &str, weight: u32) -> Value {
        json!({"destination": {"host": host}, "weight": weight})
    }

    fn with_cookie(mut entry: Value, text: &str) -> Value {
        entry["headers"] = json!({"response": {"add": {"Set-Cookie": text}}});
        entry
    }

    fn holders(regex: &str) -> Value {
        json!([{"headers": {"Cookie": {"regex": regex}}}])
    }

    /// The worked example of Flagger's shapes.
    #[test]
    fn both_cookies_keep_clients_on_their_side() {
        let http = set(&mut world(json!({}), None), Split::to_canary(10));
        let expected = json!([
            {"match": holders(".*canary-ck.*AAAAAAAAAA.*"), "route": [to("podinfo-primary", 0), to("podinfo-canary", 100)]},
            {"match": holders(".*primary-ck.*BBBBBBBBBB.*"), "route": [to("podinfo-primary", 100), to("podinfo-canary", 0)]},
            {"route": [
                with_cookie(to("podinfo-primary", 90), "primary-ck=BBBBBBBBBB; Max-Age=15"),
                with_cookie(to("podinfo-canary", 10), "canary-ck=AAAAAAAAAA; Max-Age=86400"),
            ]},
        ]);
        assert_eq!(http, expected);
    }

    #[test]
    fn one_cookie_is_enough() {
        let http = set(&mut world(json!({"primaryCookieName": null}), None), Split::to_canary(10));
        assert_eq!(http.as_array().unwrap().len(), 2);
        assert_eq!(http[1]["route"][0], to("podinfo-primary", 90));
    }

    #[test]
    fn attributes_are_in_flaggers_order_and_go_along_when_the_cookie_is_taken_back() {
        let attributes = json!({
            "maxAge": 60, "domain": "example.com", "httpOnly": true, "partitioned": true, "path": "/app",
            "sameSite": "Strict", "secure": true,
        });
        let mut world = world(attributes, Some(cookie("canary-ck", "CCCCCCCCCC")));
        let text = "Domain=example.com; HttpOnly; Partitioned; Path=/app; SameSite=Strict; Secure";
        let http = set(&mut world, Split::to_canary(10));
        let set_at = |entry: &Value| entry["headers"]["response"]["add"]["Set-Cookie"].clone();
        assert_eq!(set_at(&http[2]["route"][1]), format!("canary-ck=AAAAAAAAAA; Max-Age=60; {text}"));
        let http = set(&mut world, Split::PRIMARY);
        assert_eq!(set_at(&http[0]), format!("canary-ck=CCCCCCCCCC; Max-Age=-1; {text}"));
    }

    #[test]
    fn nothing_is_left_of_a_run_but_the_rule_that_takes_its_cookie_back() {
        let mut world = world(json!({"primaryCookieName": null}), None);
        assert_eq!(
            set(&mut world, Split::PRIMARY),
            json!([{"route": [to("podinfo-primary", 100), to("podinfo-canary", 0)]}])
        );
        set(&mut world, Split::to_canary(10));
        set(&mut world, Split::to_canary(30));
        world.cookies.as_mut().unwrap().former = Some(cookie("canary-ck", "AAAAAAAAAA"));
        let by_weight = json!({"route": [to("podinfo-primary", 100), to("podinfo-canary", 0)]});
        let mut forget = with_cookie(by_weight.clone(), "canary-ck=AAAAAAAAAA; Max-Age=-1");
        forget["match"] = holders(".*canary-ck.*AAAAAAAAAA.*");
        assert_eq!(set(&mut world, Split::PRIMARY), json!([forget, by_weight]));
    }

    /// Flagger adds the cookie to the service's own headers, and to every route with them.
    #[test]
    fn headers_and_conditions_of_the_service_stay() {
        let mut world = world(json!({}), Some(cookie("canary-ck", "CCCCCCCCCC")));
        world.canary.service.headers = serde_json::from_value(json!({"response": {"add": {"x-a": "1"}}})).unwrap();
        world.canary.service.matches = serde_json::from_value(json!([{"uri": {"prefix": "/api"}}])).unwrap();
        let http = set(&mut world, Split::PRIMARY);
        let added = json!({"x-a": "1", "Set-Cookie": "canary-ck=CCCCCCCCCC; Max-Age=-1"});
        assert_eq!(http[0]["headers"]["response"]["add"], added);
        assert_eq!(http[1]["headers"]["response"]["add"], json!({"x-a": "1"}));
        assert_eq!(http[0]["match"][0]["uri"], json!({"prefix": "/api"}));
        assert_eq!(http[1]["match"], json!([{"uri": {"prefix": "/api"}}]));
    }

    #[test]
    fn copies_are_of_the_requests_without_a_cookie() {
        let mut world = world(json!({}), Some(cookie("canary-ck", "CCCCCCCCCC")));
        world.canary.analysis.mirror = true;
        let http = set(&mut world, Split { mirrored: true, ..Split::PRIMARY });
        assert_eq!((http[0].get("mirror"), &http[1]["mirror"]["host"]), (None, &json!("podinfo-canary")));
    }

    #[test]
    fn what_somebody_changed_is_put_right_with_the_weights_in_force() {
        let mut world = world(json!({}), None);
        let expected = set(&mut world, Split::to_canary(10));
        let mut http = expected.clone();
        http[0]["match"] = json!([{"uri": {"prefix": "/"}}]);
        http[2]["route"][1]["headers"] = json!({});
        world.edit(&kinds::VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": http}}));
        world.apply(Istio.reconcile(&world.subject(), Split::to_canary(10)).unwrap());
        assert_eq!(world.json(&kinds::VIRTUAL_SERVICE, "podinfo")["spec"]["http"], expected);
    }

    #[test]
    fn names_are_taken_literally() {
        assert_eq!(escaped("canary-flagger_cookie"), "canary-flagger_cookie");
        assert_eq!(escaped("a.b$c"), "a\\.b\\$c");
    }
}
