//! Random sequences of operations on a few kinds of objects, from a seed.

use serde_json::{Map, Value, json};

use crate::kinds::{Field, KINDS, Kind};

/// What a sequence is made from.
pub(crate) struct Random(aviary_sim::random::Random);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(aviary_sim::random::Random::new(seed))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap()
    }

    /// True so many times of a hundred.
    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// One request. `@rv0` (the object's first version that was seen), `@rv` (its last), `@uid` and `@namespace` stand for what each
/// server calls them.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A sequence about one object of one kind.
pub(crate) fn sequence(random: &mut Random) -> (&'static Kind, Vec<Operation>) {
    let kind = random.pick(KINDS);
    let length = 3 + random.below(8);
    // The first may be refused, and of nothing nothing can be told.
    let mut operations = vec![create(kind, random), create_base(kind)];
    for _ in 1..length {
        operations.push(operation(kind, random));
    }
    (kind, operations)
}

/// The kind's valid object.
pub(crate) fn create_base(kind: &Kind) -> Operation {
    let body = (kind.base)().to_string();
    Operation { method: "POST", path: kind.collection.to_owned(), content_type: "application/json", body }
}

/// Reads what is at a path.
pub(crate) fn read_at(path: &str) -> Operation {
    Operation { method: "GET", path: path.to_owned(), content_type: "application/json", body: String::new() }
}

/// The name of the last object of a sequence, which tells that there is no more to come.
pub(crate) const END: &str = "end";

/// Creates that object; it meets every selector.
pub(crate) fn create_end(kind: &Kind) -> Operation {
    let mut object = (kind.base)();
    object["metadata"]["name"] = json!(END);
    object["metadata"]["labels"]["x"] = json!("1");
    Operation {
        method: "POST",
        path: kind.collection.to_owned(),
        content_type: "application/json",
        body: object.to_string(),
    }
}

fn operation(kind: &'static Kind, random: &mut Random) -> Operation {
    match random.below(100) {
        0..6 => create(kind, random),
        6..18 => put(kind, random),
        18..34 => patch(kind, random, "application/merge-patch+json"),
        34..46 => patch(kind, random, "application/strategic-merge-patch+json"),
        46..58 => json_patch(kind, random),
        58..84 => apply(kind, random),
        84..90 if kind.scales => scale(kind, random),
        84..94 => delete(kind, random),
        94..97 => Operation {
            method: "DELETE",
            path: format!("{}?labelSelector=x%3D1", kind.collection),
            content_type: "application/json",
            body: String::new(),
        },
        _ => read(kind, random),
    }
}

fn read(kind: &Kind, random: &mut Random) -> Operation {
    let path = match random.below(4) {
        0 => kind.collection.to_owned(),
        1 => format!("{}?labelSelector=x%3D1", kind.collection),
        2 => format!("{}?fieldSelector=metadata.name%3Da", kind.collection),
        _ => format!("{}/a", kind.collection),
    };
    read_at(&path)
}

/// Sets a value at a pointer, with objects on the way.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for name in pointer.split('/').skip(1) {
        let name: String = name.replace("~1", "/").replace("~0", "~");
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut().unwrap().entry(name).or_insert(Value::Null);
    }
    *place = value;
}

/// A part of an object: some fields with some values.
fn part(kind: &Kind, random: &mut Random, most: usize) -> Value {
    let fields = (kind.fields)();
    let mut document = json!({});
    for _ in 0..=random.below(most) {
        let Field { pointer, values } = random.pick(&fields);
        set(&mut document, pointer, random.pick(values).clone());
    }
    document
}

/// A whole object, mostly a valid one.
fn whole(kind: &Kind, random: &mut Random) -> Value {
    let mut document = (kind.base)();
    let fields = (kind.fields)();
    for _ in 0..random.below(4) {
        let Field { pointer, values } = random.pick(&fields);
        set(&mut document, pointer, random.pick(values).clone());
    }
    document
}

fn query(random: &mut Random, first: &[&str]) -> String {
    let mut options: Vec<&str> = first.to_vec();
    if random.percent(8) {
        options.push("dryRun=All");
    }
    if random.percent(20) {
        options.push(*random.pick(&["fieldValidation=Strict", "fieldValidation=Ignore"]));
    }
    if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) }
}

fn manager(random: &mut Random) -> Vec<&'static str> {
    if random.percent(50) { vec![*random.pick(&["fieldManager=ann", "fieldManager=bob"])] } else { Vec::new() }
}

fn create(kind: &Kind, random: &mut Random) -> Operation {
    let manager = manager(random);
    let path = format!("{}{}", kind.collection, query(random, &manager));
    Operation { method: "POST", path, content_type: "application/json", body: whole(kind, random).to_string() }
}

/// The path of the object, or of its status.
fn object_path(kind: &Kind, random: &mut Random) -> String {
    let status = if kind.has_status && random.percent(20) { "/status" } else { "" };
    format!("{}/a{status}", kind.collection)
}

fn put(kind: &Kind, random: &mut Random) -> Operation {
    let manager = manager(random);
    let mut object = whole(kind, random);
    if random.percent(75) {
        object["metadata"]["resourceVersion"] = json!("@rv");
    }
    let path = format!("{}{}", object_path(kind, random), query(random, &manager));
    Operation { method: "PUT", path, content_type: "application/json", body: object.to_string() }
}

fn patch(kind: &Kind, random: &mut Random, content_type: &'static str) -> Operation {
    let manager = manager(random);
    let path = format!("{}{}", object_path(kind, random), query(random, &manager));
    Operation { method: "PATCH", path, content_type, body: part(kind, random, 3).to_string() }
}

fn json_patch(kind: &Kind, random: &mut Random) -> Operation {
    let manager = manager(random);
    let fields = (kind.fields)();
    let mut operations = Vec::new();
    for _ in 0..=random.below(2) {
        let Field { pointer, values } = random.pick(&fields);
        let mut operation = json!({"op": *random.pick(&["add", "replace", "remove", "test", "add"]), "path": pointer});
        if operation["op"] != "remove" {
            operation["value"] = random.pick(values).clone();
        } else if random.percent(20) {
            operation["op"] = json!(random.pick(&["copy", "move"]));
            operation["from"] = json!(random.pick(&fields).pointer);
        }
        operations.push(operation);
    }
    let path = format!("{}{}", object_path(kind, random), query(random, &manager));
    Operation {
        method: "PATCH",
        path,
        content_type: "application/json-patch+json",
        body: json!(operations).to_string(),
    }
}

fn apply(kind: &Kind, random: &mut Random) -> Operation {
    let mut options = vec![*random.pick(&["fieldManager=ann", "fieldManager=bob", "fieldManager=cyd"])];
    if random.percent(40) {
        options.push("force=true");
    }
    let mut config = if random.percent(30) { whole(kind, random) } else { part(kind, random, 4) };
    for (field, value) in [("apiVersion", (kind.base)()["apiVersion"].clone()), ("kind", (kind.base)()["kind"].clone())]
    {
        config[field] = value;
    }
    if random.percent(90) && config["metadata"].get("name").is_none() {
        set(&mut config, "/metadata/name", json!("a"));
    }
    // What null means to an apply is another matter for each type, and nobody applies it on purpose.
    drop_nulls(&mut config);
    let path = format!("{}{}", object_path(kind, random), query(random, &options));
    Operation { method: "PATCH", path, content_type: "application/apply-patch+yaml", body: config.to_string() }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn scale(kind: &Kind, random: &mut Random) -> Operation {
    let replicas = random.pick(&[json!(0), json!(2), json!(3), json!(-1), json!("x")]).clone();
    let manager = manager(random);
    let path = format!("{}/a/scale{}", kind.collection, query(random, &manager));
    if random.percent(30) {
        let metadata = json!({"name": "a", "namespace": "@namespace"});
        let body = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}});
        return Operation { method: "PUT", path, content_type: "application/json", body: body.to_string() };
    }
    if random.percent(20) {
        return Operation { method: "GET", path, content_type: "application/json", body: String::new() };
    }
    let body = json!({"spec": {"replicas": replicas}}).to_string();
    Operation { method: "PATCH", path, content_type: "application/merge-patch+json", body }
}

fn delete(kind: &Kind, random: &mut Random) -> Operation {
    let mut options = json!({});
    if random.percent(60) {
        options["propagationPolicy"] = json!(random.pick(&["Foreground", "Background", "Orphan", "Sideways"]));
    }
    if random.percent(15) {
        options["preconditions"] = random
            .pick(&[
                json!({"uid": "other"}),
                json!({"uid": "@uid"}),
                json!({"resourceVersion": "@rv0"}),
                json!({"resourceVersion": "@rv"}),
            ])
            .clone();
    }
    if random.percent(10) {
        options["gracePeriodSeconds"] = random.pick(&[json!(0), json!(5), json!(-1)]).clone();
    }
    if random.percent(10) {
        options["dryRun"] = json!(["All"]);
    }
    let body = if options == json!({}) { String::new() } else { options.to_string() };
    Operation { method: "DELETE", path: format!("{}/a", kind.collection), content_type: "application/json", body }
}
