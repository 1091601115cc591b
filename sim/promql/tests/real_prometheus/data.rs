//! Half an hour of series that have everything in them which makes PromQL hard: several scrape grids, resets, series that
//! begin late, end with a marker, end without one, pause, tie, or hold no number.

use aviary_promql::{Labels, Series, stale_marker};

/// When the data begin: an instant that is a multiple of every step in use.
pub(crate) const START_MS: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;
const LENGTH: i64 = 30 * MINUTE;

/// Bounds and the part of the requests below each.
const BUCKETS: [(&str, f64); 8] =
    [("5", 0.02), ("10", 0.1), ("25", 0.45), ("50", 0.8), ("100", 0.97), ("250", 0.995), ("1000", 1.0), ("+Inf", 1.0)];

pub(crate) fn series() -> Vec<Series> {
    let mut data = Data { series: Vec::new(), random: 0x9E37_79B9_7F4A_7C15 };
    data.istio();
    data.other_meshes();
    data.awkward_counters();
    data.gauges();
    data.series
}

struct Data {
    series: Vec<Series>,
    random: u64,
}

impl Data {
    /// The next number of a fixed sequence (xorshift), 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    fn next(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn add(&mut self, name: &str, labels: &[(&str, &str)], samples: Vec<(i64, f64)>) {
        let labels: Labels = labels.iter().copied().chain([("__name__", name)]).collect();
        let samples = samples.into_iter().map(|(at_ms, value)| (START_MS + at_ms, value)).collect();
        self.series.push(Series { labels: labels.into(), samples });
    }

    /// Whole numbers that grow by about `per_scrape`.
    fn counter(&mut self, offset_ms: i64, step_ms: i64, per_scrape: f64) -> Vec<(i64, f64)> {
        let mut total = 0.0;
        let times = (0..).map(|index| offset_ms + index * step_ms).take_while(|at_ms| *at_ms <= LENGTH);
        times
            .map(|at_ms| {
                total += (2.0 * per_scrape * self.next()).floor();
                (at_ms, total)
            })
            .collect()
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], count: &[(i64, f64)], scale: f64) {
        for (bound, share) in BUCKETS {
            let bound = match bound.parse::<f64>() {
                Ok(bound) if bound.is_finite() => (bound * scale).to_string(),
                _ => bound.to_owned(),
            };
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            let samples = count.iter().map(|(at_ms, total)| (*at_ms, (total * share).floor())).collect();
            self.add(&format!("{name}_bucket"), &labels, samples);
        }
        self.add(&format!("{name}_count"), labels, count.to_vec());
        let sum = count.iter().map(|(at_ms, total)| (*at_ms, total * 31.7 * scale)).collect();
        self.add(&format!("{name}_sum"), labels, sum);
    }

    fn istio(&mut self) {
        let grids = [("podinfo", 1_200), ("podinfo-primary", 3_417), ("other", 0)];
        for (workload, offset_ms) in grids {
            for (code, per_scrape) in [("200", 60.0), ("404", 2.0), ("500", 1.0), ("503", 0.3)] {
                for reporter in ["destination", "source"] {
                    let labels = [
                        ("reporter", reporter),
                        ("destination_workload", workload),
                        ("destination_workload_namespace", "test"),
                        ("destination_service", "podinfo.test.svc.cluster.local"),
                        ("response_code", code),
                    ];
                    let mut count = self.counter(offset_ms, 5_000, per_scrape);
                    if workload == "podinfo" {
                        // The pods are replaced in the middle: the counter begins again at zero.
                        let reset = count.iter().find(|(at_ms, _)| *at_ms > LENGTH / 2).unwrap().1;
                        let replaced = count.iter_mut().filter(|(at_ms, _)| *at_ms > LENGTH / 2);
                        replaced.for_each(|(_, value)| *value -= reset);
                    }
                    if code == "500" && workload == "podinfo-primary" {
                        // The first failure comes late.
                        count.retain(|(at_ms, _)| *at_ms >= 18 * MINUTE);
                    }
                    self.add("istio_requests_total", &labels, count.clone());
                    self.histogram("istio_request_duration_milliseconds", &labels, &count, 1.0);
                }
            }
        }
    }

    fn other_meshes(&mut self) {
        let count = self.counter(700, 5_000, 40.0);
        for direction in ["inbound", "outbound"] {
            for (classification, per_scrape) in [("success", 40.0), ("failure", 2.0)] {
                let labels = [
                    ("namespace", "test"),
                    ("deployment", "podinfo"),
                    ("direction", direction),
                    ("classification", classification),
                ];
                let count = self.counter(700, 5_000, per_scrape);
                self.add("response_total", &labels, count);
            }
            let labels = [("namespace", "test"), ("deployment", "podinfo"), ("direction", direction)];
            self.histogram("response_latency_ms", &labels, &count, 1.0);
        }
        for (code, per_scrape) in [("200", 40.0), ("503", 1.5)] {
            let clusters = [
                ("envoy_cluster_name", "test_podinfo-canary_9898"),
                ("envoy_cluster_name", "test-podinfo-canaryupstream-9898_gloo-system"),
                ("envoy_cluster_name", "test/podinfo-00002"),
                ("service", "podinfo-canary_test_svc_9898"),
                ("kubernetes_pod_name", "podinfo-7d4b9f-x2x9z"),
            ];
            for label in clusters {
                let labels = [label, ("envoy_response_code", code), ("kubernetes_namespace", "test")];
                let count = self.counter(4_000, 5_000, per_scrape);
                self.add("envoy_cluster_upstream_rq", &labels, count.clone());
                self.histogram("envoy_cluster_upstream_rq_time", &labels, &count, 1.0);
            }
            let count = self.counter(2_000, 10_000, per_scrape);
            let nginx = [("namespace", "test"), ("ingress", "podinfo"), ("canary", "podinfo-canary"), ("status", code)];
            self.add("nginx_ingress_controller_requests", &nginx, count.clone());
            self.histogram("nginx_ingress_controller_response_duration_seconds", &nginx, &count, 0.001);
            let route = ("route", "kube_test__podinfo_canary__all__podinfo_canary");
            self.histogram("skipper_response_duration_seconds", &[route, ("code", code)], &count, 0.001);
            self.histogram("skipper_serve_route_duration_seconds", &[route, ("code", code)], &count, 0.001);
            let service = ("service", "test-podinfo-canary-9898@kubernetescrd");
            self.histogram("traefik_service_request_duration_seconds", &[service, ("code", code)], &count, 0.001);
            self.add(
                "apisix_http_status",
                &[("route", "test_podinfo-podinfo-canary_r0"), ("code", code)],
                count.clone(),
            );
            let labels = [
                ("kubernetes_namespace", "test"),
                ("namespace", "test"),
                ("app", "podinfo"),
                ("kubernetes_pod_name", "podinfo-7d4b9f-x2x9z"),
                ("path", "root"),
                ("status", code),
            ];
            self.histogram("http_request_duration_seconds", &labels, &count, 0.001);
            self.add("http_requests_total", &labels, count);
        }
    }

    fn awkward_counters(&mut self) {
        // Small and slow: extrapolation meets zero.
        self.add("slow_total", &[("pod", "a")], self.counter_with(40_000, 15_000, |index| index));
        self.add("slow_total", &[("pod", "b")], self.counter_with(40_000, 15_000, |index| 3.0 + index * 2.0));
        self.add("slow_total", &[("pod", "constant")], self.counter_with(5_000, 15_000, |_| 7.0));
        // Ends with a marker after ten minutes, and comes back after twenty.
        let mut ends = self.counter_with(0, 10_000, |index| index * 3.0);
        ends.retain(|(at_ms, _)| *at_ms < 10 * MINUTE || *at_ms >= 20 * MINUTE);
        ends.push((10 * MINUTE, stale_marker()));
        ends.sort_by_key(|(at_ms, _)| *at_ms);
        self.add("ended_total", &[("pod", "a")], ends);
        // Ends without one.
        let mut vanishes = self.counter_with(0, 10_000, |index| index * 5.0);
        vanishes.retain(|(at_ms, _)| *at_ms < 10 * MINUTE);
        self.add("ended_total", &[("pod", "b")], vanishes);
        // Pauses for four minutes.
        let mut pauses = self.counter_with(2_500, 10_000, |index| index * 2.5);
        pauses.retain(|(at_ms, _)| !(6 * MINUTE..10 * MINUTE).contains(at_ms));
        self.add("ended_total", &[("pod", "c")], pauses);
        // A single sample.
        self.add("once_total", &[], vec![(5 * MINUTE, 4.0)]);
    }

    #[allow(clippy::unused_self, clippy::cast_precision_loss)]
    fn counter_with(&self, offset_ms: i64, step_ms: i64, value: impl Fn(f64) -> f64) -> Vec<(i64, f64)> {
        let times = (0..).map(|index| (index, offset_ms + index * step_ms)).take_while(|(_, at_ms)| *at_ms <= LENGTH);
        times.map(|(index, at_ms)| (at_ms, value(index as f64))).collect()
    }

    fn gauges(&mut self) {
        let values = [
            ("a", "1", 1.0),
            ("a", "2", 3.0),
            ("b", "1", 5.0),
            ("b", "2", f64::NAN),
            ("c", "1", 3.0),
            ("c", "2", -0.5),
            ("d", "1", f64::INFINITY),
            ("d", "2", f64::NEG_INFINITY),
            ("e", "1", 1e-7),
            ("e", "2", 1.5e21),
        ];
        for (app, zone, value) in values {
            self.add("m", &[("app", app), ("zone", zone)], self.counter_with(0, 30_000, |_| value));
        }
        for (app, value) in [("a", 10.0), ("b", 20.0), ("z", 30.0)] {
            self.add("limit", &[("app", app)], self.counter_with(0, 30_000, |_| value));
        }
        for (app, team) in [("a", "red"), ("b", "blue"), ("c", "")] {
            let labels = [("app", app), ("team", team)];
            let labels: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            self.add("owner", &labels, self.counter_with(0, 30_000, |_| 1.0));
        }
        for pod in ["podinfo-primary-7d4b9f-x2x9z", "podinfo-7d4b9f-abcde"] {
            let samples = self.counter_with(0, 10_000, |index| (index * 0.7).sin() * 50.0);
            self.add("temperature", &[("pod", pod), ("ns", "test")], samples);
        }
        self.add("up", &[("job", "podinfo"), ("instance", "10.0.0.1:9898")], self.counter_with(0, 5_000, |_| 1.0));
        self.add("up", &[("job", "podinfo"), ("instance", "10.0.0.2:9898")], self.counter_with(0, 5_000, |_| 0.0));
        // Histograms that are not what they should be.
        let broken: [(&str, &[(&str, f64)]); 5] = [
            ("no-inf", &[("1", 2.0), ("2", 4.0)]),
            ("only-inf", &[("+Inf", 4.0)]),
            ("empty", &[("1", 0.0), ("+Inf", 0.0)]),
            ("falling", &[("1", 50.0), ("2", 40.0), ("+Inf", 100.0)]),
            ("negative", &[("-5", 20.0), ("-1", 30.0), ("+Inf", 40.0)]),
        ];
        for (kind, buckets) in broken {
            for (bound, count) in buckets {
                self.add("odd_bucket", &[("kind", kind), ("le", bound)], self.counter_with(0, 30_000, |_| *count));
            }
        }
        self.add("odd_bucket", &[("kind", "unreadable"), ("le", "much")], self.counter_with(0, 30_000, |_| 1.0));
    }
}
