#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn scope() -> Scope {
    let variables = [("pod", "web-1"), ("quote", "a\"b"), ("empty", ""), ("regex", "5\\\\d\\\\d"), ("tail", "x\\")];
    Scope {
        name: "podinfo".into(),
        namespace: "test".into(),
        target: "podinfo-target".into(),
        service: "svc".into(),
        ingress: "ing".into(),
        route: "rt".into(),
        interval: "1m".into(),
        variables: variables.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}

fn rendered(template: &str) -> String {
    render(template, &scope()).unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn with_variable(template: &str, value: &str) -> Result<String, String> {
    let scope = Scope { variables: BTreeMap::from([("x".into(), value.into())]), ..scope() };
    render(template, &scope).map_err(|error| error.to_string())
}

#[test]
fn every_function_has_its_value() {
    let template = "{{ name }} {{namespace}} {{ target }} {{ service }} {{ ingress }} {{ route }} {{ interval }}";
    assert_eq!(rendered(template), "podinfo test podinfo-target svc ing rt 1m");
}

#[test]
fn queries_of_the_field_render() {
    for (template, expected) in [
        (
            r#"x{ns="{{ namespace }}",p=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"}[{{ interval }}]"#,
            r#"x{ns="test",p=~"podinfo-target-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"}[1m]"#,
        ),
        ("{{ variables.pod }}/{{ index variables \"pod\" }}/{{ (variables).pod }}", "web-1/web-1/web-1"),
        (
            "{{- $route := printf \"kube(ew)?_%s__%s_canary__.*__%s_canary(_[0-9]+)?\" namespace ingress service }}\n  a{r=~\"{{ $route }}\"}",
            "\n  a{r=~\"kube(ew)?_test__ing_canary__.*__svc_canary(_[0-9]+)?\"}",
        ),
        ("a {{- /* gone */ -}} b{{/* gone */}} c", "ab c"),
        ("a  {{- \" b \" -}}  c", "a b c"),
        ("{{ interval | printf \"%s-%s\" name | print }}", "podinfo-1m"),
        ("{{ printf \"%d%% of %v is %q\" 5 true name }}", "5% of true is \"podinfo\""),
        ("{{ `raw \\n` }}{{ \"\\t\\\"\" }}{{ len \"four\" }}{{ -3 }}", "raw \\n\t\"4-3"),
        ("{{`one`}}{{``}}", "one"),
    ] {
        assert_eq!(rendered(template), expected);
    }
}

#[test]
fn conditions() {
    let template = "{{ if eq variables.pod \"a\" \"b\" }}1{{ else if ne namespace \"test\" }}2{{ else if variables.empty }}3{{ else }}4{{ end }}";
    assert_eq!(rendered(template), "4");
    for (condition, holds) in [
        ("eq variables.pod \"x\" \"web-1\"", true),
        ("and name (eq 1 1)", true),
        ("and name variables.empty", false),
        ("or variables.empty name", true),
        ("not name", false),
        ("variables", true),
        ("0", false),
        // The second operand is not evaluated.
        ("or name variables.missing", true),
    ] {
        let expected = if holds { "yes" } else { "no" };
        assert_eq!(
            rendered(&format!("{{{{ if {condition} }}}}yes{{{{ else }}}}no{{{{ end }}}}")),
            expected,
            "{condition}"
        );
    }
}

#[test]
fn variables_live_in_their_block_and_can_be_set_from_within() {
    assert_eq!(
        rendered("{{ $a := \"1\" }}{{ if name }}{{ $a = \"2\" }}{{ $b := \"3\" }}{{ $b }}{{ end }}{{ $a }}"),
        "32"
    );
    let error = render("{{ if name }}{{ $b := 1 }}{{ end }}{{ $b }}", &scope()).unwrap_err();
    assert_eq!(error.problem, "undefined variable \"$b\"");
}

#[test]
fn errors_name_place_and_cause() {
    for (template, expected) in [
        ("a\n  {{ variables.missing }}", "template 2:15: map has no entry for key \"missing\""),
        ("{{ index variables \"missing\" }}", "template 1:4: map has no entry for key \"missing\""),
        ("{{ nmae }}", "template 1:4: function \"nmae\" not defined"),
        ("{{ range variables }}{{ end }}", "template 1:1: \"range\" is not supported"),
        ("{{ html name }}", "template 1:4: function \"html\" is not supported"),
        ("{{ .Name }}", "template 1:4: .Name has nothing to be a field of; use a function such as variables.Name"),
        ("x {{ name", "template 1:3: action is not closed with }}"),
        ("{{ if name }}", "template 1:1: if is not closed with {{end}}"),
        ("{{ end }}", "template 1:1: unexpected {{end}}"),
        ("{{ }}", "template 1:4: missing value"),
        ("{{ name | }}", "template 1:11: missing value"),
        ("{{ name.first }}", "template 1:8: a text has no field \"first\""),
        ("{{ printf \"%f\" 1 }}", "template 1:4: printf verb %f is not supported"),
        ("{{ printf \"%s\" }}", "template 1:4: printf has no argument for %s"),
        ("{{ eq name 1 }}", "template 1:4: cannot compare a text with a number"),
        ("{{ \"open }}", "template 1:4: text is not closed with \""),
        ("{{ 1.5 }}", "template 1:4: number \"1.5\" is not supported; only whole decimal numbers are"),
        ("{{ name namespace }}", "template 1:4: name takes no arguments"),
        ("é{{ # }}", "template 1:5: unexpected '#'"),
    ] {
        let error = render(template, &scope()).expect_err(template);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_variable_between_quotes_cannot_leave_them() {
    let quoted = "x{a=\"{{ variables.x }}\"} > 0";
    let in_quotes = |value: &str| with_variable(quoted, value).unwrap();
    assert_eq!(in_quotes("\"} or vector(1) #"), "x{a=\"\\\"} or vector(1) #\"} > 0");
    assert_eq!(in_quotes("tail\\"), "x{a=\"tail\\\\\"} > 0");
    assert_eq!(in_quotes("a\nb"), "x{a=\"a\\nb\"} > 0");
    // A backslash before a line end escapes nothing that PromQL knows.
    assert_eq!(in_quotes("a\\\nb"), "x{a=\"a\\\\\\nb\"} > 0");
    assert_eq!(with_variable("x{a='{{ variables.x }}'}", "it's \"so\"").unwrap(), "x{a='it\\'s \"so\"'}");
    assert!(with_variable("x{a=`{{ variables.x }}`}", "a`b").is_err());
    // Whatever way it takes.
    assert_eq!(with_variable("\"{{ printf \"%s!\" variables.x }}\"", "a\"b").unwrap(), "\"a\\\"b!\"");
    assert_eq!(with_variable("{{ $v := index variables \"x\" }}\"{{ $v }}\"", "a\"b").unwrap(), "\"a\\\"b\"");
}

#[test]
fn a_variable_cannot_pose_as_what_the_template_says() {
    let value = "x\"} or vector(1) #";
    for template in [
        "{pod=\"{{ printf variables.x }}\"}",
        "{pod=\"{{ variables.x | printf }}\"}",
        "{{ $f := print \"a\" variables.x }}{pod=\"{{ printf $f 1 }}\"}",
    ] {
        let error = with_variable(template, value).expect_err(template);
        assert!(error.contains("the format of printf has to stand in the template"), "{error}");
    }
    // With its own quotes it would end the ones around it.
    let quoted = with_variable("{pod=\"{{ printf \"%q\" variables.x }}\"}", "} or vector(1) #").unwrap();
    assert_eq!(quoted, "{pod=\"\\\"} or vector(1) #\\\"\"}");
}

#[test]
fn an_apostrophe_in_a_comment_does_not_let_a_variable_out() {
    let template = "# what isn't an error\nx{a=\"{{ variables.x }}\"}";
    assert_eq!(with_variable(template, "web-1").unwrap(), "# what isn't an error\nx{a=\"web-1\"}");
    let error = with_variable(template, "\"} or vector(1) #").unwrap_err();
    assert!(error.contains("a quote in a comment before it"), "{error}");
    // Of a pair nothing is left open.
    let paired = "# not \"5xx\"\nx{a=\"{{ variables.x }}\"}";
    assert_eq!(with_variable(paired, "a\"b").unwrap(), "# not \"5xx\"\nx{a=\"a\\\"b\"}");
}

#[test]
fn what_worked_in_flagger_is_not_changed() {
    assert_eq!(with_variable("x{c=~\"{{ variables.x }}\"}", "5\\\\d\\\\d|\\\"").unwrap(), "x{c=~\"5\\\\d\\\\d|\\\"\"}");
    assert_eq!(
        with_variable("x{ {{ variables.x }} }", "job=\"a\",code=~\"5..\"").unwrap(),
        "x{ job=\"a\",code=~\"5..\" }"
    );
    assert_eq!(with_variable("x{a={{ printf \"%q\" variables.x }}}", "a\"\\b").unwrap(), "x{a=\"a\\\"\\\\b\"}");
}

#[test]
fn hostile_templates_are_stopped() {
    let deep = format!("{}{}", "{{ if name }}".repeat(100), "{{ end }}".repeat(100));
    assert!(render(&deep, &scope()).unwrap_err().problem.starts_with("nested deeper"));
    assert!(render(&format!("{{{{ {} }}}}", "(".repeat(10_000)), &scope()).is_err());
    let mut doubling = "{{ $a := \"0123456789abcdef\" }}".to_owned();
    doubling.push_str(&"{{ $a = printf \"%s%s\" $a $a }}".repeat(40));
    assert!(render(&doubling, &scope()).is_err());
    let mut printed = "{{ $a := \"0123456789abcdef\" }}".to_owned();
    printed.push_str(&"{{ $a = print $a $a }}".repeat(40));
    assert!(render(&printed, &scope()).is_err());
}
