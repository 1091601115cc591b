//! What the load tester tells of itself.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Its metrics. Clones share them.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Registry,
    /// Requests of tasks, by program and status code.
    pub(super) requests: IntCounterVec,
    /// Tasks that have ended or were not started, by type and result.
    pub(super) tasks: IntCounterVec,
    /// Tasks that run, by namespace.
    pub(super) running: IntGaugeVec,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let requests = Opts::new("aviary_loadtest_requests_total", "Requests sent by tasks.");
        let requests = IntCounterVec::new(requests, &["program", "code"])?;
        let tasks = Opts::new("aviary_loadtest_tasks_total", "Tasks, by what became of them.");
        let tasks = IntCounterVec::new(tasks, &["type", "result"])?;
        let running = Opts::new("aviary_loadtest_tasks_running", "Tasks that run.");
        let running = IntGaugeVec::new(running, &["namespace"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(tasks.clone()))?;
        registry.register(Box::new(running.clone()))?;
        Ok(Metrics { registry, requests, tasks, running })
    }

    pub(super) fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts a task as running until this is dropped.
    pub(super) fn run(&self, namespace: &str) -> Running {
        self.running.with_label_values(&[namespace]).inc();
        Running { gauge: self.running.clone(), namespace: namespace.to_owned() }
    }
}

/// A task that runs.
pub(super) struct Running {
    gauge: IntGaugeVec,
    namespace: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let running = self.gauge.with_label_values(&[&self.namespace]);
        running.dec();
        // Callers choose the names of namespaces: one without tasks leaves no series.
        if running.get() == 0 {
            let _ = self.gauge.remove_label_values(&[&self.namespace]);
        }
    }
}
