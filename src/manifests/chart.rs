//! What charts/ takes from the code: permissions, flags, resource definitions, and schemas of the values.
//! `UPDATE_GENERATED=1 cargo test -p aviary` rewrites the files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::CommandFactory;
use serde_json::{Map, Value, json};

use crate::args::{Cli, RunArgs};
use crate::rbac::{self, Feature, PERMISSIONS, Permission};

/// Flags that have another place among the values than their own name, and what stands there if it is not nothing.
const PLACES: [(&str, &str); 11] = [
    ("cluster-name", ".Values.clusterName"),
    ("enable-config-tracking", ".Values.configTracking.enabled"),
    ("enable-leader-election", ".Values.leaderElection.enabled"),
    ("kubeconfig-burst", ".Values.kubeconfigBurst"),
    ("kubeconfig-qps", ".Values.kubeconfigQPS"),
    ("leader-election-lease-duration", ".Values.leaderElection.leaseDuration"),
    ("leader-election-renew-deadline", ".Values.leaderElection.renewDeadline"),
    ("leader-election-retry-period", ".Values.leaderElection.retryPeriod"),
    ("metrics-server", "(include \"aviary.metricsServer\" .)"),
    ("slack-channel", "(include \"aviary.slackChannel\" .)"),
    ("slack-user", ".Values.slack.user"),
];
/// Flags whose text the chart makes.
const MADE: [(&str, &str); 2] = [
    ("kubeconfig-service-mesh", "(include \"aviary.kubeconfigServiceMesh\" .)"),
    ("leader-election-namespace", "(ternary .Release.Namespace \"\" .Values.leaderElection.enabled)"),
];
/// Not for a pod, or decided by the chart.
const LEFT_OUT: [&str; 4] = ["kubeconfig", "master", "port", "version"];

struct Flag {
    name: String,
    default: String,
    help: String,
    /// What it is in a template.
    expression: String,
    /// The name of a value of its own, which is listed at the end of values.yaml.
    own_value: Option<String>,
    /// What its value may be, where that is known before the operator starts.
    schema: Option<Value>,
}

/// Of durations as Go writes them, and of nothing.
const DURATION: &str = "^(0|([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))*$";

/// What a flag takes, and what stands for its default.
fn schema_of(argument: &clap::Arg) -> Option<Value> {
    let kinds: Vec<&str> =
        argument.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str).collect();
    let named: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    match kinds[..] {
        ["DURATION"] => Some(json!({"type": ["string", "null"], "pattern": DURATION})),
        ["NUMBER"] => {
            Some(json!({"type": ["number", "string", "null"], "pattern": "^([0-9]+([.][0-9]*)?)?$", "minimum": 0}))
        }
        ["BOOL"] => Some(json!({"enum": [true, false, "true", "false", "", null]})),
        _ if !named.is_empty() => {
            let others = [json!(""), Value::Null];
            Some(json!({"enum": named.into_iter().map(Value::from).chain(others).collect::<Vec<_>>()}))
        }
        _ => None,
    }
}

fn flags() -> Vec<Flag> {
    let mut command = Cli::command();
    command.build();
    let verb = command.find_subcommand("run").unwrap();
    let shown = verb.get_arguments().filter(|argument| !argument.is_hide_set());
    let named = shown.filter_map(|argument| Some((argument.get_long()?.to_owned(), argument)));
    let secrets: Vec<_> = RunArgs::SECRETS.iter().map(|(flag, _)| *flag).collect();
    let wanted =
        named.filter(|(name, _)| name != "help" && !LEFT_OUT.contains(&&**name) && !secrets.contains(&&**name));
    let own = |name: &str| {
        let mut words = name.split('-');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |text, word| text + &word[..1].to_uppercase() + &word[1..])
    };
    let in_text = std::fs::read_to_string(path("aviary/values.yaml")).unwrap();
    let (by_hand, _) = in_text.split_once(MARK).unwrap_or((&in_text, ""));
    wanted
        .map(|(name, argument)| {
            let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let value = own(&name);
            let place =
                PLACES.iter().chain(&MADE).find(|(flag, _)| *flag == name).map(|(_, place)| (*place).to_owned());
            // Flagger's own names end in capitals.
            let value = place.as_deref().and_then(|place| place.strip_prefix(".Values.")).unwrap_or(&value).to_owned();
            let is_by_hand = value.contains('.') || by_hand.lines().any(|line| line.starts_with(&format!("{value}:")));
            let is_made = place.as_ref().is_some_and(|place| place.starts_with('('));
            Flag {
                default: default.join(","),
                help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
                expression: place.unwrap_or_else(|| format!(".Values.{value}")),
                own_value: (!is_by_hand && !is_made).then_some(value),
                schema: schema_of(argument),
                name,
            }
        })
        .collect()
}

fn path(file: &str) -> String {
    format!("{}/charts/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn assert_current(file: &str, expected: &str) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(path(file), expected).unwrap();
    }
    let checked_in = std::fs::read_to_string(path(file)).unwrap_or_default();
    assert!(checked_in == expected, "charts/{file} is out of date: run UPDATE_GENERATED=1 cargo test -p aviary");
}

const NOTICE: &str = "Generated: UPDATE_GENERATED=1 cargo test -p aviary";

fn rules(wanted: impl Fn(&Permission) -> Option<String>) -> String {
    let mut text = String::new();
    for permission in PERMISSIONS {
        let Some(condition) = wanted(permission) else { continue };
        let rule = rbac::rule(permission);
        let mut lines = String::new();
        for key in ["apiGroups", "resources", "resourceNames", "verbs"] {
            if !rule[key].is_null() {
                let dash = if key == "apiGroups" { "-" } else { " " };
                writeln!(lines, "{dash} {key}: {}", rule[key].to_string().replace("\",\"", "\", \"")).unwrap();
            }
        }
        match condition.as_str() {
            "" => write!(text, "# {}\n{lines}", permission.why).unwrap(),
            condition => {
                write!(text, "{{{{- if {condition} }}}}\n# {}\n{lines}{{{{- end }}}}\n", permission.why).unwrap()
            }
        }
    }
    text
}

#[test]
fn the_rules_of_the_chart_are_those_of_the_table() {
    let main = rules(|permission| match permission.feature {
        Feature::Core => Some(String::new()),
        Feature::Provider(name) => {
            let providers = aviary_providers::traffic::ALL.iter().map(|provider| provider.name());
            let mut condition = "or (empty .Values.rbac.providers)".to_owned();
            for provider in providers.filter(|provider| crate::rbac::needs(provider, name)) {
                write!(condition, " (has \"{provider}\" .Values.rbac.providers)").unwrap();
            }
            Some(condition)
        }
        Feature::LeaderElection => None,
    });
    let election = rules(|permission| (permission.feature == Feature::LeaderElection).then(String::new));
    // The comment's end takes the blank before it along.
    let text = format!(
        "{{{{/* {NOTICE} */}}}}\n{{{{- define \"aviary.rules\" }}}}\n{main}{{{{- end }}}}\n\n\
         {{{{- define \"aviary.leaderElectionRules\" }}}}\n{election}{{{{- end }}}}\n"
    );
    assert_current("aviary/templates/_rules.tpl", &text);
}

#[test]
fn the_chart_has_every_flag() {
    let mut text = format!("{{{{/* {NOTICE} */}}}}\n{{{{- define \"aviary.flags\" }}}}\n{{{{- $flags := list\n");
    for flag in flags() {
        writeln!(text, "  (list {:?} {:?} {})", flag.name, flag.default, flag.expression).unwrap();
    }
    text += "}}\n{{- range $flags }}\n{{- $value := index . 2 }}\n\
             {{- /* What is not said and what is the default need not be said. */}}\n\
             {{- if not (or (kindIs \"invalid\" $value) (has (toString $value) (list \"\" (index . 1)))) }}\n\
             - {{ printf \"--%s=%s\" (index . 0) (include \"aviary.text\" $value) | quote }}\n{{- end }}\n{{- end }}\n{{- end }}\n";
    assert_current("aviary/templates/_flags.tpl", &text);
}

const MARK: &str = "# ---- Flags of the operator, empty for its defaults. Generated:";

/// In this order: schemas are those of the values.
#[test]
fn values_are_documented_and_schemas_are_theirs() {
    flags_are_documented();
    schemas_are_those_of_the_values();
}

fn flags_are_documented() {
    let current = std::fs::read_to_string(path("aviary/values.yaml")).unwrap();
    let (by_hand, _) = current.split_once(MARK).unwrap_or((&current, ""));
    let mut text = format!("{}\n\n{MARK} UPDATE_GENERATED=1 cargo test -p aviary\n", by_hand.trim_end());
    for Flag { name, default, help, own_value, .. } in flags() {
        let Some(value) = own_value else { continue };
        let default = if default.is_empty() { String::new() } else { format!(", {default}") };
        write!(text, "\n# {}. (--{name}{default})\n{value}: \"\"\n", help.trim_end_matches('.')).unwrap();
    }
    assert_current("aviary/values.yaml", &text);
}

#[test]
fn each_secret_is_one_of_the_operators_variables() {
    for (flag, variable) in RunArgs::SECRETS {
        let address = "http://token.example.com/";
        let of = |line: &[&str], variable_is_set: bool| {
            let environment = |name: &str| (variable_is_set && name == variable).then(|| address.to_owned());
            let line = ["aviary", "run"].iter().chain(line).map(std::ffi::OsString::from);
            let Ok(Cli { command: crate::args::Command::Run(run) }) = Cli::parse_from(line, environment) else {
                panic!("{flag}")
            };
            [
                run.slack_url,
                run.slack_token,
                run.slack_proxy_url,
                run.msteams_url,
                run.msteams_proxy_url,
                run.event_webhook,
            ]
        };
        let by_flag = of(&[&format!("--{flag}={address}")], false);
        assert!(by_flag.iter().filter(|value| !value.is_empty()).count() == 1, "{flag}");
        assert_eq!(by_flag, of(&[], true), "{flag} and {variable}");
    }
    // `mesh-provider` and its like are no secrets; a flag that the environment stands for is one.
    let mut command = Cli::command();
    command.build();
    let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
    let named: BTreeSet<&str> = help.split("[env: ").skip(1).filter_map(|rest| rest.split(']').next()).collect();
    assert_eq!(named, RunArgs::SECRETS.iter().map(|(_, variable)| *variable).collect());
}

#[test]
fn the_definitions_of_the_chart_are_those_of_the_code() {
    let mut expected = BTreeSet::new();
    for definition in aviary_crds::schema::all_crds() {
        let file = format!("{}.yaml", definition["metadata"]["name"].as_str().unwrap());
        assert_current(&format!("aviary/crds/{file}"), &aviary_crds::schema::definition_to_yaml(&definition).unwrap());
        expected.insert(file);
    }
    // The embedded cluster's, which knows them as Envoy's users write them.
    let splits = "trafficsplits.split.smi-spec.io.yaml";
    let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/sim/src/apiserver/definition/");
    assert_current(&format!("envoy/crds/{splits}"), &std::fs::read_to_string(format!("{embedded}{splits}")).unwrap());
    let files = std::fs::read_dir(path("aviary/crds")).unwrap();
    let found: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected);
}

/// What is known of single values, beyond what values.yaml says by its types.
type Known = BTreeMap<String, Value>;

/// The schema of a values.yaml: what stands there by hand says the types, and nothing else may be set.
fn schema(value: &Value, place: &str, known: &Known) -> Value {
    // Objects of Kubernetes, which it checks itself.
    let is_free = |name: &str| FREE.contains(&name);
    match value {
        _ if known.contains_key(place) => known[place].clone(),
        _ if is_free(place) => json!({"type": ["object", "null"]}),
        Value::Object(fields) => {
            let properties: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| {
                    let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                    (name.clone(), schema(value, &place, known))
                })
                .collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
        Value::Array(_) if place == "rbac.providers" => {
            let names: Vec<_> = aviary_providers::traffic::ALL.iter().map(|provider| provider.name()).collect();
            json!({"type": "array", "items": {"enum": names}})
        }
        Value::Array(_) => json!({"type": ["array", "null"]}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) if place.ends_with("minAvailable") => json!({"type": ["integer", "string"]}),
        Value::Number(_) => json!({"type": "integer", "minimum": 0}),
        // `--set image.tag=1.0` is a number, and Flagger's values have nulls.
        Value::String(_) | Value::Null => json!({"type": ["string", "number", "boolean", "null"]}),
    }
}

/// Places in values that hold parts of Kubernetes' objects, or names that are the user's.
const FREE: [&str; 20] = [
    "affinity",
    "annotations",
    "deploymentLabels",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "podMonitor.additionalLabels",
    "podSecurityContext.context",
    "prometheus.securityContext.context",
    "rbac.serviceAccountAnnotations",
    "resources",
    "securityContext.context",
    "service.annotations",
    "serviceAccount.annotations",
    "serviceMonitor.labels",
    "grafana.ini",
    "podDisruptionBudget.labels",
    "istio.gateway.annotations",
    "datasource.jsonData",
    "xdsLoader.resources",
];

/// What values of the operator's flags may be.
fn known_of_flags() -> Known {
    let of_flag = |flag: Flag| Some((flag.expression.strip_prefix(".Values.")?.to_owned(), flag.schema?));
    // Switches that stand in a section are switches there, too.
    flags().into_iter().filter_map(of_flag).filter(|(place, _)| !place.ends_with(".enabled")).collect()
}

/// What values of `charts/envoy` may be.
fn known_of_envoy() -> Known {
    let switch = |more: Value| {
        let mut properties = json!({"enabled": {"type": "boolean"}});
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": ["object", "null"], "additionalProperties": false, "properties": properties})
    };
    let backend = json!({
        "type": "object", "additionalProperties": false, "required": ["port", "weight"],
        "properties": {
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "weight": {"type": "integer", "minimum": 0, "maximum": 100},
            "http2": switch(json!({"protocol_options": {"type": ["object", "null"]}})),
            "request_headers_to_add": {"type": ["array", "null"]},
        },
    });
    let upstream = json!({
        "type": "object", "additionalProperties": false, "required": ["backends"],
        "properties": {
            "smi": switch(json!({})),
            "domains": {"type": ["array", "null"], "items": {"type": "string"}},
            "backends": {"type": "object", "minProperties": 1, "additionalProperties": backend},
        },
    });
    let mut command = Cli::command();
    command.build();
    let crossover = command.find_subcommand("crossover").unwrap();
    let version = crossover.get_arguments().find(|argument| argument.get_id() == "trafficsplit_api_version").unwrap();
    let versions: Vec<_> = version.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    Known::from([
        ("upstreams".to_owned(), json!({"type": "object", "additionalProperties": upstream})),
        ("smi.apiVersions.trafficSplits".to_owned(), json!({"enum": versions})),
        ("codecType".to_owned(), json!({"enum": ["AUTO", "HTTP1", "HTTP2", "auto", "http1", "http2"]})),
    ])
}

fn schemas_are_those_of_the_values() {
    for chart in ["aviary", "loadtester", "grafana", "envoy"] {
        let values: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(path(&format!("{chart}/values.yaml"))).unwrap()).unwrap();
        let mut known = match chart {
            "aviary" => known_of_flags(),
            "envoy" => known_of_envoy(),
            _ => Known::new(),
        };
        // As Kubernetes spells them.
        let pull_policy = json!({"enum": ["Always", "IfNotPresent", "Never"]});
        let service_type = json!({"enum": ["ClusterIP", "NodePort", "LoadBalancer"]});
        known.extend(
            ["image.pullPolicy", "xdsLoader.image.pullPolicy"].map(|place| (place.to_owned(), pull_policy.clone())),
        );
        known.insert("service.type".to_owned(), service_type);
        known.insert("rbac.scope".to_owned(), json!({"enum": ["cluster", "namespace", "", null]}));
        let mut schema = schema(&values, "", &known);
        // What Helm hands on when the chart is a part of another.
        schema["properties"]["global"] = json!({"type": "object"});
        let head = json!({"$schema": "http://json-schema.org/draft-07/schema#", "$comment": NOTICE, "title": format!("Values of charts/{chart}")});
        let mut whole = head.as_object().unwrap().clone();
        whole.extend(schema.as_object().unwrap().clone());
        assert_current(&format!("{chart}/values.schema.json"), &format!("{:#}\n", Value::Object(whole)));
    }
}
