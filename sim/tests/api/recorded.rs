//! Manifests with mistakes: the embedded server has to answer what a real one answered, word for word.

use serde::Deserialize;

use crate::support::world;

#[derive(Deserialize)]
struct Record {
    path: String,
    answer: Answer,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Answer {
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Groups that the embedded server does not serve (yet); a record of them is not compared while that is so.
fn is_not_served(answer: &Answer) -> bool {
    answer.code == 404 && answer.message.contains("404 page not found")
}

/// Sends every record; returns how many were compared.
async fn compare(records: &str) -> usize {
    let world = world().await;
    let mut differences = Vec::new();
    let mut compared = 0;
    for line in records.lines() {
        let record: Record = serde_json::from_str(line).unwrap();
        // As text: unknown fields are told in the order of the document.
        let object = line.split_once(",\"object\":").unwrap().1.rsplit_once(",\"answer\":").unwrap().0;
        let path = format!("{}?dryRun=All&fieldValidation=Strict", record.path);
        let answer = match world.request("POST", &path, "application/json", object).await {
            Ok(_) => Answer { code: 201, reason: String::new(), message: String::new() },
            Err(kube::Error::Api(status)) => {
                Answer { code: status.code, reason: status.reason, message: status.message }
            }
            Err(other) => panic!("no answer: {other}"),
        };
        if is_not_served(&answer) {
            continue;
        }
        compared += 1;
        // The regular expression engines say in their own words what is wrong with an expression.
        let of_engine = "must be a valid regular expression, but isn't: ";
        let cut = |text: &str| text.split(of_engine).next().unwrap_or_default().to_owned();
        if answer.code != record.answer.code || cut(&answer.message) != cut(&record.answer.message) {
            differences.push(format!("{object}\n  real: {:?}\n  here: {answer:?}", record.answer));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    compared
}

#[tokio::test(start_paused = true)]
async fn manifests_are_refused_in_the_words_of_a_real_server() {
    let compared = compare(include_str!("../fixtures/refusals/manifests.jsonl")).await;
    assert!(compared > 200, "only {compared} compared");
}

#[tokio::test(start_paused = true)]
async fn definitions_are_refused_in_the_words_of_a_real_server() {
    let compared = compare(include_str!("../fixtures/refusals/definitions.jsonl")).await;
    assert_eq!(compared, 70);
}
