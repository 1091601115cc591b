//! `aviary crossover`: TrafficSplits and ConfigMaps become files that an Envoy beside it follows.
//!
//! What is written is decided in `merge`. Everything here waits for changes, and outlives what goes wrong.

mod merge;
mod output;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aviary_providers::{ObjectKind, kinds};
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{CrossoverArgs, LogEncoding, LogLevel};
use crate::logging;
use merge::{Files, Split};

/// Between two tries of what failed: an Envoy that starts waits for its init container, and an API server is not pressed.
const PAUSE: Duration = Duration::from_secs(1);

/// Who applies the generated ConfigMap.
const FIELD_MANAGER: &str = "aviary-crossover";

/// Runs until a signal, or until the files are written once.
///
/// # Errors
/// If there is no usable configuration of the API server.
pub fn run(args: &CrossoverArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    logging::init(LogLevel::Info, LogEncoding::Json).context("start logging")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let client = client(args).await?;
        let mut stops = signal(SignalKind::terminate()).context("handle signals")?;
        let mut interrupts = signal(SignalKind::interrupt()).context("handle signals")?;
        tokio::select! {
            end = follow(&client, args, out) => end?,
            _ = stops.recv() => {}
            _ = interrupts.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn client(args: &CrossoverArgs) -> anyhow::Result<Client> {
    let mut config = if !args.kubeconfig.is_empty() {
        let path = std::path::Path::new(&args.kubeconfig);
        let kubeconfig =
            Kubeconfig::read_from(path).with_context(|| format!("read --kubeconfig={}", path.display()))?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.context("read --kubeconfig")?
    } else if let Ok(config) = Config::incluster() {
        config
    } else if args.apiserver.is_empty() {
        return Err(anyhow!("find a cluster: run in a pod, or pass --kubeconfig or --apiserver"));
    } else {
        Config::new(args.apiserver.parse().context("read --apiserver")?)
    };
    if args.kubeconfig.is_empty() {
        if !args.apiserver.is_empty() {
            config.cluster_url = args.apiserver.parse().context("read --apiserver")?;
        }
        config.auth_info.token_file = Some(args.token_file.display().to_string());
    }
    config.accept_invalid_certs = args.insecure;
    Client::try_from(config).context("set up the Kubernetes client")
}

/// What one watch told.
struct Told {
    from: Source,
    event: watcher::Result<Event<DynamicObject>>,
}

#[derive(Clone, Copy)]
enum Source {
    ConfigMap(usize),
    /// Of which ConfigMap, and which of its splits.
    Split(usize, usize),
}

/// One ConfigMap, and what goes into it.
struct Table {
    name: String,
    /// `None` until it was seen.
    template: Option<Files>,
    splits: Vec<Split>,
    /// Problems that were told.
    told: Vec<String>,
    /// Files that are in place and in the generated ConfigMap.
    published: Option<Files>,
}

async fn follow(client: &Client, args: &CrossoverArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let configmaps = api(client, &kinds::CONFIG_MAP.api_resource(), args);
    let splits = api(client, &split_resource(&args.trafficsplit_api_version), args);
    let mut tables: Vec<Table> = Vec::new();
    for (name, names) in args.pairs() {
        let splits = names.iter().map(|name| Split::unseen(name)).collect();
        tables.push(Table { name, template: None, splits, told: Vec::new(), published: None });
    }
    if args.onetime || args.dry_run {
        return once(&configmaps, &splits, &mut tables, args, out).await;
    }
    let mut changes: SelectAll<BoxStream<'_, Told>> = SelectAll::new();
    let mut watch = |api: &Api<DynamicObject>, name: &str, from: Source| {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(api.clone(), config).default_backoff().map(move |event| Told { from, event });
        changes.push(events.boxed());
    };
    for (index, table) in tables.iter().enumerate() {
        watch(&configmaps, &table.name, Source::ConfigMap(index));
        for (place, split) in table.splits.iter().enumerate() {
            watch(&splits, &split.name, Source::Split(index, place));
        }
    }
    tracing::info!(configmaps = ?args.configmap, trafficsplits = ?args.trafficsplit, "Following");
    let mut is_behind = false;
    loop {
        tokio::select! {
            told = changes.next() => match told {
                Some(told) => take(&mut tables, told),
                None => return Err(anyhow!("all watches have ended")),
            },
            () = tokio::time::sleep(PAUSE), if is_behind => {}
        }
        // What has come meanwhile is written in one go.
        while let Some(Some(told)) = changes.next().now_or_never() {
            take(&mut tables, told);
        }
        is_behind = false;
        for table in &mut tables {
            is_behind |= !publish(table, &configmaps, args).await;
        }
    }
}

/// As an init container: a ConfigMap is waited for, a TrafficSplit that is not there yet is not.
async fn once(
    configmaps: &Api<DynamicObject>,
    splits: &Api<DynamicObject>,
    tables: &mut [Table],
    args: &CrossoverArgs,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for table in tables {
        while !read(configmaps, splits, table).await {
            tokio::time::sleep(PAUSE).await;
        }
        if args.dry_run {
            for (name, text) in merged(table, args) {
                writeln!(out, "# {name}\n{text}")?;
            }
            continue;
        }
        while !publish(table, configmaps, args).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Reads everything once. Whether it could be.
async fn read(configmaps: &Api<DynamicObject>, splits: &Api<DynamicObject>, table: &mut Table) -> bool {
    match configmaps.get_opt(&table.name).await {
        Ok(Some(object)) => table.template = Some(files(&object)),
        Ok(None) => {
            tracing::warn!("Waiting for ConfigMap {}", table.name);
            return false;
        }
        Err(error) => {
            tracing::warn!("read ConfigMap {}: {error}; trying again", table.name);
            return false;
        }
    }
    for split in &mut table.splits {
        match splits.get_opt(&split.name).await {
            Ok(Some(object)) => take_split(split, &object),
            Ok(None) => tracing::info!("TrafficSplit {} is not there yet: the template's weights hold", split.name),
            Err(error) => {
                tracing::warn!("read TrafficSplit {}: {error}; trying again", split.name);
                return false;
            }
        }
    }
    true
}

fn take(tables: &mut [Table], told: Told) {
    let event = match told.event {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!("watch: {error}; the files stay as they are, trying again");
            return;
        }
    };
    match (told.from, event) {
        (Source::ConfigMap(index), Event::Apply(object) | Event::InitApply(object)) => {
            tables[index].template = Some(files(&object));
        }
        (Source::Split(index, place), Event::Apply(object) | Event::InitApply(object)) => {
            take_split(&mut tables[index].splits[place], &object);
        }
        // What is gone leaves the files in place: an Envoy without routes serves nobody.
        (Source::ConfigMap(index), Event::Delete(_)) => {
            tracing::warn!("ConfigMap {} is gone; the files stay as they are", tables[index].name);
        }
        (Source::Split(index, place), Event::Delete(_)) => {
            let name = &tables[index].splits[place].name;
            tracing::warn!("TrafficSplit {name} is gone; its weights stay as they are");
        }
        (_, Event::Init | Event::InitDone) => {}
    }
}

fn take_split(split: &mut Split, object: &DynamicObject) {
    if let Err(problem) = split.take(&object.data) {
        tracing::warn!("{problem}");
    }
}

fn files(configmap: &DynamicObject) -> Files {
    let data = configmap.data.get("data").and_then(Value::as_object);
    data.into_iter().flatten().filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
}

/// The files as they are to be. What is wrong is told when it is new.
fn merged(table: &mut Table, args: &CrossoverArgs) -> Files {
    let Some(template) = &table.template else { return Files::new() };
    let merged = merge::merge(template, &table.splits, &output::current(&args.output_dir));
    for problem in merged.problems.iter().filter(|problem| !table.told.contains(problem)) {
        tracing::warn!("ConfigMap {}: {problem}", table.name);
    }
    table.told = merged.problems;
    merged.files
}

/// Writes the files and the generated ConfigMap. Whether nothing is left to do.
async fn publish(table: &mut Table, configmaps: &Api<DynamicObject>, args: &CrossoverArgs) -> bool {
    let files = merged(table, args);
    if files.is_empty() || table.published.as_ref() == Some(&files) {
        return true;
    }
    match output::write(&args.output_dir, &files) {
        Ok(written) if written.is_empty() => {}
        Ok(written) => tracing::info!(files = ?written, "ConfigMap {} is written", table.name),
        Err(error) => {
            tracing::error!("write the files of ConfigMap {}: {error}; trying again", table.name);
            return false;
        }
    }
    if !table.splits.is_empty() {
        apply_generated(&table.name, &files, configmaps, args).await;
    }
    table.published = Some(files);
    true
}

/// For people: what Envoy reads. Every replica applies the same, and Envoy does not depend on it.
async fn apply_generated(template: &str, files: &Files, configmaps: &Api<DynamicObject>, args: &CrossoverArgs) {
    let name = format!("{template}-gen");
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": args.namespace}, "data": files,
    });
    let applied = configmaps.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await;
    if let Err(error) = applied {
        tracing::warn!("write ConfigMap {name}: {error}; Envoy has the files all the same");
    }
}

fn api(client: &Client, resource: &ApiResource, args: &CrossoverArgs) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &args.namespace, resource)
}

fn split_resource(version: &str) -> ApiResource {
    let kind: &ObjectKind = &kinds::TRAFFIC_SPLIT_V1ALPHA1;
    ApiResource { version: version.to_owned(), api_version: format!("{}/{version}", kind.group), ..kind.api_resource() }
}
