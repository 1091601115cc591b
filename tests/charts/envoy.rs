//! `charts/envoy`: what it renders is what a real Envoy takes.

use super::*;

/// Writes the ConfigMaps of the chart where this Envoy finds them, and returns the configuration.
fn configuration(objects: &[Value], directory: &Path) -> Value {
    for map in objects.iter().filter(|object| object["kind"] == "ConfigMap") {
        for (name, text) in map["data"].as_object().unwrap() {
            let text = text.as_str().unwrap().replace("/srv/runtime/current", directory.to_str().unwrap());
            std::fs::write(directory.join(name), text).unwrap();
        }
    }
    serde_saphyr::from_str(&std::fs::read_to_string(directory.join("envoy.yaml")).unwrap()).unwrap()
}

/// With the routes of the template as a part of it: of those in a file Envoy says nothing before it serves.
fn with_routes(mut configuration: Value, directory: &Path) -> Value {
    let routes: Value = serde_saphyr::from_str(&std::fs::read_to_string(directory.join("rds.yaml")).unwrap()).unwrap();
    let mut routes = routes["resources"][0].clone();
    routes.as_object_mut().unwrap().remove("@type");
    let listener = &mut configuration["static_resources"]["listeners"][0];
    let manager = listener["filter_chains"][0]["filters"][0]["typed_config"].as_object_mut().unwrap();
    assert_eq!(manager.remove("rds").unwrap()["route_config_name"], routes["name"]);
    manager.insert("route_config".to_owned(), routes);
    configuration
}

fn check(configuration: &Value, directory: &Path) -> Result<(), String> {
    let path = directory.join("checked.json");
    std::fs::write(&path, configuration.to_string()).unwrap();
    let mut command = Command::new(tools().unwrap().join("envoy"));
    command.args(["--mode", "validate", "--service-node", "a", "--service-cluster", "envoy", "--config-path"]);
    let output = command.arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.into_owned()) }
}

#[test]
fn envoy_takes_what_the_chart_renders() {
    let Some(helm) = Helm::find() else { return };
    let headers = "upstreams.podinfo.backends.podinfo-canary.request_headers_to_add[0].header";
    let http2 = "upstreams.podinfo.backends.podinfo-primary.http2";
    let options = [
        format!("--set={headers}.key=x-version,{headers}.value=canary,codecType=http2,route.name=users"),
        format!("--set={http2}.enabled=true,{http2}.protocol_options.max_concurrent_streams=100"),
        "--set=upstreams.podinfo.domains={a.example.com}".to_owned(),
        "--set=upstreams.b.backends.b\\.test.port=80,upstreams.b.backends.b\\.test.weight=100".to_owned(),
    ];
    let guide = ["-f", "tests/charts/crossover-guide.yaml"];
    let more: Vec<&str> = guide.into_iter().chain(options.iter().map(String::as_str)).collect();
    for arguments in [&[][..], &guide[..], &more[..]] {
        let directory = tempfile::tempdir().unwrap();
        let whole = configuration(&helm.objects("envoy", "envoy", arguments), directory.path());
        check(&whole, directory.path()).unwrap_or_else(|errors| panic!("{arguments:?}: {errors}"));
        let mut whole = with_routes(whole, directory.path());
        check(&whole, directory.path()).unwrap_or_else(|errors| panic!("{arguments:?}: {errors}"));
        // It would say so if a route led nowhere.
        whole["static_resources"]["clusters"] = json!([]);
        assert_eq!(check(&whole, directory.path()).is_err(), !arguments.is_empty(), "{arguments:?}");
    }
}
