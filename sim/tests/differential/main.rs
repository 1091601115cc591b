//! The same random sequences of operations, sent to the embedded API server and to a real one: answers and objects have to be the
//! same.
//!
//! `AVIARY_SEQUENCES` says how many (default 300), `AVIARY_SEED` which come first (default 1). A failure tells the seed and the
//! shortest part of its sequence that still shows it. Known differences (`known.rs`) may hide only so much: of a full run a share of
//! the operations that is bounded here, and some watches have to be left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../bench/mod.rs"]
mod bench;
mod generate;
mod kinds;
mod known;
mod server;
mod tally;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aviary_sim::{Cluster, ClusterOptions};
use futures::StreamExt as _;
use kube::Client;
use serde_json::{Value, json};

use bench::Bench;
use generate::{Operation, Random};
use kinds::Kind;
use server::{Answer, COLLECTED, Server};
use tally::Tally;

const TEST: &str = "random_sequences_have_the_answers_of_a_real_server";
/// What CI runs: within two minutes on a busy machine of two cores.
const SEQUENCES: u64 = 300;
/// Sequences at the same time: so many that what takes time is the servers' work and not the way there and back.
const AT_ONCE: usize = 16;

#[test]
fn random_sequences_have_the_answers_of_a_real_server() {
    let Some(directory) = bench::inside() else {
        if let Some(bench) = Bench::up() {
            bench.run_tests(&["--exact", TEST, "--nocapture"], 1);
        }
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let real = bench::client(&directory, "sequences").await;
        compare(real).await;
    });
}

fn definitions() -> Vec<Value> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml/canaries.flagger.app.yaml"))
        .unwrap();
    vec![serde_saphyr::from_str(&text).unwrap(), kinds::gadget_definition()]
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// A sequence, and what came of it.
struct Run {
    seed: u64,
    kind: &'static Kind,
    operations: Vec<Operation>,
    difference: Option<Difference>,
    tally: Tally,
}

async fn compare(real: Client) {
    let cluster = Cluster::new(ClusterOptions {
        controllers: None,
        crds: definitions(),
        // Any time that no generated body says.
        base_time: jiff::Timestamp::from_second(1_790_000_000).unwrap(),
        ..ClusterOptions::default()
    });
    let both = Both {
        real,
        here: cluster.client("sequences"),
        runs: AtomicU64::new(0),
        prefix: format!("r{}", std::process::id()),
    };
    let began = Instant::now();
    both.define().await;
    let (first, count) = (number("AVIARY_SEED", 1), number("AVIARY_SEQUENCES", SEQUENCES));
    let sequences = (first..first + count).map(|seed| (seed, generate::sequence(&mut Random::new(seed))));
    let (custom, built_in): (Vec<_>, Vec<_>) = sequences.partition(|(_, (kind, _))| kind.is_custom());
    // The garbage collector hears of the definitions while sequences run that have nothing to do with them.
    let (mut runs, ()) = tokio::join!(both.run_all(built_in), both.collector_knows_definitions());
    runs.extend(both.run_all(custom).await);
    runs.sort_by_key(|run| run.seed);

    let mut tally = Tally::default();
    let mut found: BTreeMap<String, (u64, Run)> = BTreeMap::new();
    for mut run in runs {
        tally.add(std::mem::take(&mut run.tally));
        let Some(difference) = &run.difference else { continue };
        found.entry(difference.signature(run.kind.collection)).or_insert((0, run)).0 += 1;
    }
    let mut report = String::new();
    for (signature, (times, run)) in &mut found {
        both.shorten(run).await;
        let text = run.difference.as_ref().map(|difference| difference.tell(run.seed, &run.operations));
        writeln!(report, "\n== {times} times: {signature}\n{}", text.unwrap_or_default()).unwrap();
    }
    println!("{tally}\n{count} sequences from seed {first}: {} s", began.elapsed().as_secs());
    assert!(found.is_empty(), "{} kinds of differences in {count} sequences\n{report}", found.len());
    if count >= SEQUENCES {
        tally.assert_that_enough_was_compared(count);
    }
}

struct Both {
    real: Client,
    here: Client,
    runs: AtomicU64,
    /// Of the names of namespaces, so that a bench can be used again.
    prefix: String,
}

struct Difference {
    position: usize,
    real: Answer,
    here: Answer,
    places: Vec<Place>,
}

/// Where two answers differ.
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) real: Value,
    pub(crate) here: Value,
}

impl Place {
    /// `5` and `5.0`.
    pub(crate) fn is_the_same_number(&self) -> bool {
        self.real.is_number() && self.real.as_f64() == self.here.as_f64()
    }
}

impl Both {
    /// Installs the definitions in the real cluster, and waits until it serves them.
    async fn define(&self) {
        for definition in definitions() {
            let request = http::Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
                .header("Content-Type", "application/json")
                .body(definition.to_string().into_bytes())
                .unwrap();
            match self.real.request::<Value>(request).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{error}"),
            }
        }
        let mut server = Server::new(self.real.clone(), &format!("{}-probe", self.prefix)).await;
        for kind in kinds::KINDS {
            let create = generate::create_base(kind);
            let deadline = Instant::now() + COLLECTED;
            loop {
                let answer = server.send(&create).await;
                if answer.code == 201 {
                    break;
                }
                assert_ne!(answer.code, 422, "{}", answer.body);
                assert!(Instant::now() < deadline, "{} is not served: {}", kind.collection, answer.body);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until the real garbage collector deletes custom resources: it learns of new kinds every half minute.
    async fn collector_knows_definitions(&self) {
        let namespace = format!("{}-collected", self.prefix);
        let mut server = Server::new(self.real.clone(), &namespace).await;
        for kind in kinds::KINDS.iter().filter(|kind| kind.is_custom()) {
            assert_eq!(server.send(&generate::create_base(kind)).await.code, 201);
            let path = format!("{}/a", kind.collection);
            let body = json!({"propagationPolicy": "Foreground"}).to_string();
            let delete = Operation { method: "DELETE", path: path.clone(), content_type: "application/json", body };
            server.send(&delete).await;
            server.read_collected(&path).await;
        }
    }

    /// Each in its own namespaces. The result has no particular order.
    async fn run_all(&self, sequences: Vec<(u64, (&'static Kind, Vec<Operation>))>) -> Vec<Run> {
        let runs = sequences.into_iter().map(|(seed, (kind, operations))| async move {
            let (difference, tally) = self.difference(kind, &operations).await;
            if let Some(difference) = &difference {
                // At once, too: it may take long until all have run.
                println!("{}", difference.tell(seed, &operations));
            }
            Run { seed, kind, operations, difference, tally }
        });
        futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await
    }

    /// Leaves out of a sequence what is not needed to show its difference.
    async fn shorten(&self, run: &mut Run) {
        let Some(difference) = &run.difference else { return };
        let signature = difference.signature(run.kind.collection);
        let last = difference.position;
        run.operations.truncate(last + 1);
        for position in (0..last).rev() {
            let mut shorter = run.operations.clone();
            shorter.remove(position);
            let (found, _) = self.difference(run.kind, &shorter).await;
            if let Some(still) = found.filter(|still| still.signature(run.kind.collection) == signature) {
                shorter.truncate(still.position + 1);
                run.operations = shorter;
                run.difference = Some(still);
            }
        }
    }

    /// The first answer that differs and is not known to; or what a watch from the first version says in the end. And how much
    /// was compared.
    async fn difference(&self, kind: &Kind, operations: &[Operation]) -> (Option<Difference>, Tally) {
        let namespace = format!("{}-{}", self.prefix, self.runs.fetch_add(1, Ordering::Relaxed));
        let mut real = Server::new(self.real.clone(), &namespace).await;
        let mut here = Server::new(self.here.clone(), &namespace).await;
        let object_path = format!("{}/a", kind.collection);
        let read = generate::read_at(&object_path);
        let mut tally = Tally::default();
        for (position, operation) in operations.iter().enumerate() {
            let answers = (real.send(operation).await, here.send(operation).await);
            tally.operations += 1;
            let refused = answers.0.code >= 400 && answers.1.code >= 400;
            let changed_alike = refused || answers.0.body == answers.1.body;
            let judged = tally.judge(position, operation, answers);
            if judged.is_some() {
                return (judged, tally);
            }
            let mut goes_on = changed_alike;
            if goes_on && operation.method != "GET" {
                let answers = (real.read_collected(&object_path).await, here.send(&read).await);
                goes_on = answers.0 == answers.1;
                let judged = tally.judge(position, operation, answers);
                if judged.is_some() {
                    return (judged, tally);
                }
            }
            if !goes_on {
                tally.ended += 1;
                tally.unseen += operations.len() - position - 1;
                return (None, tally);
            }
        }
        // Half of the watches have a selector, which objects begin and cease to meet.
        let selector = if operations.len().is_multiple_of(2) { "" } else { "&labelSelector=x%3D1" };
        // Before there is another object, which has a version, too.
        let watched = (real.first_version(), here.first_version());
        let end = generate::create_end(kind);
        let answers = (real.send(&end).await, here.send(&end).await);
        assert_eq!(answers.0.code, 201, "{:?}", answers.0.body);
        let judged = tally.judge(operations.len() - 1, &end, answers);
        if judged.is_some() {
            return (judged, tally);
        }
        let (Some(real_version), Some(here_version)) = watched else {
            tally.unwatched += 1;
            return (None, tally);
        };
        let told = (
            real.events_until(generate::END, kind.collection, &real_version, selector).await,
            here.events_until(generate::END, kind.collection, &here_version, selector).await,
        );
        tally.watches += 1;
        if told.0 == told.1 {
            return (None, tally);
        }
        let answer = |events: Value| Answer { code: 200, warnings: Vec::new(), body: events };
        (Some(Difference::at(operations.len() - 1, answer(told.0), answer(told.1))), tally)
    }
}

/// The places at which two values differ.
fn differing(path: &str, one: &Value, other: &Value, found: &mut Vec<Place>) {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            let mut names: Vec<&String> = fields.keys().chain(others.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                differing(&format!("{path}/{name}"), &one[name], &other[name], found);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                differing(&format!("{path}/{index}"), item, other, found);
            }
        }
        _ if one != other => found.push(Place { path: path.to_owned(), real: one.clone(), here: other.clone() }),
        _ => {}
    }
}

impl Difference {
    fn at(position: usize, real: Answer, here: Answer) -> Difference {
        let mut places = Vec::new();
        differing("", &real.body, &here.body, &mut places);
        Difference { position, real, here, places }
    }

    /// What makes it the same as another one: much the same words about the same kind.
    fn signature(&self, collection: &str) -> String {
        let kind = collection.rsplit('/').next().unwrap_or_default();
        let first = self.places.first().map_or("warnings", |place| &place.path);
        let said = |answer: &Answer| {
            let message = answer.body["message"].as_str().unwrap_or_default();
            message.chars().filter(|character| !character.is_ascii_digit()).take(100).collect::<String>()
        };
        format!("{kind} {} {} {first} | {} | {}", self.real.code, self.here.code, said(&self.real), said(&self.here))
    }

    fn tell(&self, seed: u64, operations: &[Operation]) -> String {
        let mut text = format!("AVIARY_SEED={seed} AVIARY_SEQUENCES=1\n");
        for Operation { method, path, content_type, body } in operations {
            let kind = content_type.trim_start_matches("application/");
            writeln!(text, "  {method} {path} ({kind})\n    {body}").unwrap();
        }
        writeln!(
            text,
            "  real: {} {:?}\n  here: {} {:?}",
            self.real.code, self.real.warnings, self.here.code, self.here.warnings
        )
        .unwrap();
        for Place { path, real, here } in self.places.iter().take(12) {
            writeln!(text, "    {path}\n      real: {real}\n      here: {here}").unwrap();
        }
        text
    }
}
