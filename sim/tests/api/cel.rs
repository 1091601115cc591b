//! Validation rules of custom resources (`x-kubernetes-validations`).

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, object, resource, world};

/// A definition of `Gauge` whose `spec` has this schema.
fn definition(spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gauges.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Gauge", "plural": "gauges"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}],
        },
    })
}

async fn gauges(world: &World, spec: &Value) -> Api<DynamicObject> {
    world.define(definition(spec)).await;
    let gauges = Api::namespaced_with(world.client.clone(), &world.namespace, &resource("example.com", "v1", "Gauge"));
    world.until_served(&gauges).await;
    gauges
}

fn gauge(spec: &Value) -> DynamicObject {
    object(json!({"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": "g"}, "spec": spec}))
}

/// The schema of an object with these rules and these properties.
fn with_rules(rules: &Value, properties: &Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": rules, "properties": properties})
}

#[tokio::test(start_paused = true)]
async fn broken_rules_are_refused_in_the_servers_words() {
    let world = world().await;
    let schema = with_rules(
        &json!([
            {"rule": "self.low <= self.high", "message": "low must not exceed high"},
            {"rule": "!has(self.tags) || self.tags.all(t, t.startsWith('a'))"},
            {"rule": "self.low >= 0", "messageExpression": "self.low == -1 ? 'low is minus one' : 'low is negative'", "fieldPath": ".low",
                "reason": "FieldValueForbidden"},
            {"rule": "!has(self.ratio) || self.ratio < 1.5", "message": "too much"},
            {"rule": "!has(self.__namespace__) || self.__namespace__ != 'default' || self.dash__dash__ed"},
        ]),
        &json!({
            "low": {"type": "integer", "x-kubernetes-validations": [{"rule": "self != 7", "message": "not seven"}]},
            "high": {"type": "integer"},
            "ratio": {"type": "number"},
            "namespace": {"type": "string"},
            "dash-ed": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "size(self) < 4"}]}},
            "limits": {"type": "object", "additionalProperties": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self > 0", "message": "must be positive"}]}},
        }),
    );
    let gauges = gauges(&world, &schema).await;
    let prefix = "Gauge.example.com \"g\" is invalid: ";
    for (spec, expected) in [
        (json!({"low": 3, "high": 2}), "spec: Invalid value: low must not exceed high"),
        (
            json!({"low": 1, "high": 2, "tags": ["ab", "b"]}),
            "spec: Invalid value: failed rule: !has(self.tags) || self.tags.all(t, t.startsWith('a'))",
        ),
        (json!({"low": -1, "high": 2}), "spec.low: Forbidden: low is minus one"),
        (json!({"low": 1, "high": 2, "ratio": 2}), "spec: Invalid value: too much"),
        (json!({"low": 7, "high": 9}), "spec.low: Invalid value: 7: not seven"),
        (
            json!({"low": 1, "high": 9, "tags": ["aaaa"]}),
            "spec.tags[0]: Invalid value: \"aaaa\": failed rule: size(self) < 4",
        ),
        (json!({"low": 1, "high": 9, "limits": {"cpu": 0}}), "spec.limits[cpu]: Invalid value: 0: must be positive"),
        (
            json!({"low": 1}),
            "spec: Invalid value: \"object\": no such key: high evaluating rule: low must not exceed high",
        ),
        (
            json!({"low": "x", "high": 1}),
            "[spec.low: Invalid value: \"string\": spec.low in body must be of type integer: \"string\", <nil>: Invalid \
             value: null: some validation rules were not checked because the object was invalid; correct the existing \
             errors to complete validation]",
        ),
    ] {
        let refusal = gauges.create(&PostParams::default(), &gauge(&spec)).await.refusal();
        assert_eq!((refusal.code, refusal.message), (422, format!("{prefix}{expected}")), "{spec}");
    }
    let valid = json!({"low": 1, "high": 2, "tags": ["ab"], "ratio": 1, "namespace": "default", "dash-ed": true});
    gauges.create(&PostParams::default(), &gauge(&valid)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn transition_rules_compare_with_the_last_state() {
    let world = world().await;
    let schema = with_rules(
        &json!([{"rule": "!oldSelf.hasValue() || self.size >= oldSelf.value().size", "optionalOldSelf": true,
            "message": "only grows"}]),
        &json!({
            "size": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "port": {"type": "integer",
                        "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "must not sink"}]}}}},
        }),
    );
    let gauges = gauges(&world, &schema).await;
    let spec = json!({"size": 2, "name": "a", "ports": [{"name": "x", "port": 5}, {"name": "y", "port": 6}]});
    gauges.create(&PostParams::default(), &gauge(&spec)).await.unwrap();
    let patch =
        async |spec: Value| gauges.patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
    let message = async |spec: Value| patch(spec).await.refusal().message;
    let prefix = "Gauge.example.com \"g\" is invalid: ";
    assert_eq!(message(json!({"size": 1})).await, format!("{prefix}spec: Invalid value: only grows"));
    assert_eq!(message(json!({"name": "b"})).await, format!("{prefix}spec.name: Invalid value: \"b\": is immutable"));
    // Entries are told apart by their keys, not by their places.
    patch(json!({"ports": [{"name": "y", "port": 6}, {"name": "x", "port": 5}]})).await.unwrap();
    assert_eq!(
        message(json!({"ports": [{"name": "y", "port": 5}]})).await,
        format!("{prefix}spec.ports[0].port: Invalid value: 5: must not sink")
    );
    patch(json!({"ports": [{"name": "z", "port": 1}], "size": 3})).await.unwrap();
    patch(json!({"name": null})).await.unwrap();
    patch(json!({"name": "new"})).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_did_not_change_need_not_satisfy_a_later_rule() {
    let world = world().await;
    let properties = json!({"colour": {"type": "string"}, "size": {"type": "integer"}});
    let gauges = gauges(&world, &with_rules(&json!([]), &properties)).await;
    gauges.create(&PostParams::default(), &gauge(&json!({"colour": "blue", "size": 1}))).await.unwrap();
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let rule = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/colour/x-kubernetes-validations",
        "value": [{"rule": "self == 'red'", "message": "must be red"}]}]);
    let rule: json_patch::Patch = serde_json::from_value(rule).unwrap();
    definitions.patch("gauges.example.com", &PatchParams::default(), &Patch::Json::<()>(rule)).await.unwrap();
    let patch =
        async |spec: Value| gauges.patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
    patch(json!({"size": 2})).await.unwrap();
    let refusal = patch(json!({"colour": "green"})).await.refusal();
    assert_eq!(
        refusal.message,
        "Gauge.example.com \"g\" is invalid: spec.colour: Invalid value: \"green\": must be red"
    );
}

#[tokio::test(start_paused = true)]
async fn rules_that_do_not_compile_refuse_the_definition() {
    let world = world().await;
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, expected) in [
        (json!({"rule": "self.missing == 1"}), "undefined field 'missing'"),
        (json!({"rule": "self.items.all(i, i.wrong > 0)"}), "undefined field 'wrong'"),
        (json!({"rule": "nobody == 1"}), "undeclared reference to 'nobody'"),
        (json!({"rule": "self.text ="}), "Syntax error"),
        (json!({"rule": "   "}), "rule: Required value: rule is not specified"),
        (json!({"rule": "true", "optionalOldSelf": true}), "may not be set if oldSelf is not used in rule"),
        (json!({"rule": "true", "reason": "Nope"}), "reason: Unsupported value: \"Nope\""),
        (json!({"rule": "true", "messageExpression": "self.nothing"}), "messageExpression compilation failed"),
    ] {
        let properties = json!({
            "text": {"type": "string"},
            "items": {"type": "array", "items": {"type": "object", "properties": {"right": {"type": "integer"}}}},
        });
        let definition = object(definition(&with_rules(&json!([rule]), &properties)));
        let refusal = definitions.create(&PostParams::default(), &definition).await.refusal();
        assert_eq!((refusal.code, refusal.reason.as_str()), (422, "Invalid"), "{rule}");
        assert!(refusal.message.contains(place), "{}", refusal.message);
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }
}

#[tokio::test(start_paused = true)]
async fn libraries_that_are_not_there_are_refused_by_name() {
    let world = world().await;
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let rule = json!([{"rule": "quantity(self.text).isGreaterThan(quantity('1'))"}]);
    let definition = object(definition(&with_rules(&rule, &json!({"text": {"type": "string"}}))));
    let refusal = definitions.create(&PostParams::default(), &definition).await.refusal();
    assert!(refusal.message.contains("undeclared reference to 'quantity'"), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn rules_have_the_functions_that_definitions_use() {
    let world = world().await;
    let rules = [
        "self.text.matches('^[a-z]+$') && self.text.size() == 5 && 'lo' in ['lo', 'hi']",
        "self.text.contains('ell') && self.text.endsWith('lo') && self.text.indexOf('l') == 2",
        "self.text.upperAscii() == 'HELLO' && self.text.substring(1, 3) == 'el' && self.text.replace('l', 'L') == 'heLLo'",
        "' x '.trim() == 'x' && self.text.find('l+') == 'll'",
        "'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "[1, 2, 3].isSorted() && [1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3 && [4, 5].indexOf(5) == 1",
        "isURL('https://example.com/x') && !isURL('x y') && isIP('10.0.0.1') && !isIP('10.0.0.256') && isCIDR('10.0.0.0/8')",
        "url('https://a.example:8080/p/q').getScheme() == 'https' && url('http://a:80/x').getHostname() == 'a'",
        "self.every == duration('90s') && self.since < timestamp('2026-01-02T00:00:00Z')",
        "self.list.exists_one(x, x > 2) && self.list.filter(x, x > 1).map(x, x * 2) == [4, 6]",
        "self.?absent.orValue('none') == 'none' && self.?text.hasValue()",
        "type(self.port) == int ? self.port < 70000 : self.port == 'http'",
        "'%s-%d'.format(['a', 1]) == 'a-1'",
    ];
    let rules: Vec<Value> = rules.iter().map(|rule| json!({"rule": rule})).collect();
    let properties = json!({
        "text": {"type": "string", "maxLength": 10}, "absent": {"type": "string", "maxLength": 10},
        "every": {"type": "string", "format": "duration"}, "since": {"type": "string", "format": "date-time"},
        "list": {"type": "array", "maxItems": 5, "items": {"type": "integer"}}, "port": {"x-kubernetes-int-or-string": true},
    });
    let gauges = gauges(&world, &with_rules(&json!(rules), &properties)).await;
    let spec =
        json!({"text": "hello", "every": "1m30s", "since": "2026-01-01T00:00:00Z", "list": [1, 2, 3], "port": 80});
    gauges.create(&PostParams::default(), &gauge(&spec)).await.unwrap();
    let refusal =
        gauges.patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": {"port": "https"}}))).await.refusal();
    assert_eq!(refusal.code, 422);
}

#[tokio::test(start_paused = true)]
async fn texts_are_split_and_joined() {
    let world = world().await;
    let rules = json!([{"rule": "self.text.split('l').join('-') == 'he--o'"}]);
    let gauges = gauges(&world, &with_rules(&rules, &json!({"text": {"type": "string"}}))).await;
    gauges.create(&PostParams::default(), &gauge(&json!({"text": "hello"}))).await.unwrap();
    let other = Patch::Merge(json!({"spec": {"text": "hallo"}}));
    assert_eq!(gauges.patch("g", &PatchParams::default(), &other).await.refusal().code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_would_take_too_long_is_not_run() {
    let world = world().await;
    let rule = json!([{"rule": "self.tags.all(a, self.tags.all(b, self.tags.all(c, a + b != c)))"}]);
    // A real server takes definitions whose rules it estimates to cost ten times what one run of them may: it is between the two.
    let tags = json!({"tags": {"type": "array", "maxItems": 75, "items": {"type": "string", "maxLength": 6}}});
    let gauges = gauges(&world, &with_rules(&rule, &tags)).await;
    let many: Vec<String> = (0..75).map(|number| format!("tag-{number}")).collect();
    let refusal = gauges.create(&PostParams::default(), &gauge(&json!({"tags": many}))).await.refusal();
    assert!(
        refusal
            .message
            .contains("no further validation rules will be run due to call cost exceeds limit for rule: self.tags"),
        "{}",
        refusal.message
    );
    gauges.create(&PostParams::default(), &gauge(&json!({"tags": many[..10]}))).await.unwrap();
}

/// Long lists and texts beside those that a rule loops over cost it nothing, and neither do loops that end early.
#[tokio::test(start_paused = true)]
async fn a_rule_costs_what_it_does_and_not_what_it_might() {
    let world = world().await;
    let rules = json!([
        {"rule": "self.low.all(a, self.high.all(b, self.high.all(c, a != b && a != c)))"},
        {"rule": "self.tags.all(a, self.tags.exists(b, self.tags.exists(c, a != c)))"},
        {"rule": "self.low.map(a, self.high.map(b, a + b)).size() == size(self.low)"},
    ]);
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let properties = json!({"low": texts, "high": texts, "tags": texts, "note": {"type": "string"}});
    let gauges = gauges(&world, &with_rules(&rules, &properties)).await;
    let tags: Vec<String> = (0..300).map(|number| format!("tag-{number}")).collect();
    let spec = json!({"low": ["a"], "high": ["b"], "tags": tags, "note": "x".repeat(300)});
    gauges.create(&PostParams::default(), &gauge(&spec)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_rule_walks_through_in_its_loops_counts() {
    let rules = [
        "self.tags.all(a, !self.note.contains(a))",
        "self.tags.all(a, !(self.note in self.tags))",
        "self.tags.filter(a, self.tags.map(b, a + b).size() < 1).size() == 0",
    ];
    let properties = json!({"tags": {"type": "array", "items": {"type": "string"}}, "note": {"type": "string"}});
    for (index, rule) in rules.into_iter().enumerate() {
        let world = world().await;
        let gauges = gauges(&world, &with_rules(&json!([{"rule": rule}]), &properties)).await;
        let (letters, tags) = if index == 0 { (100_000, 110) } else { (1_010, 1_010) };
        let spec = |letters: usize, tags: usize| {
            let tags: Vec<String> = (0..tags).map(|number| format!("tag-{number}")).collect();
            json!({"note": "x".repeat(letters), "tags": tags})
        };
        let refusal = gauges.create(&PostParams::default(), &gauge(&spec(letters, tags))).await.refusal();
        assert!(refusal.message.contains("call cost exceeds limit for rule"), "{rule}: {}", refusal.message);
        gauges.create(&PostParams::default(), &gauge(&spec(letters / 5, tags / 5))).await.unwrap();
    }
}
