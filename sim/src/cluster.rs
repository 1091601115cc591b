//! cluster
/// c
pub struct Cluster;
/// o
pub struct ClusterOptions;
