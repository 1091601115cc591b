//! Traffic model of the embedded cluster.
