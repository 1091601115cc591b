//! Prometheus query API of the embedded cluster.
