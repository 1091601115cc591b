//! Aviary: the binary and what it is wired from.

pub mod embedded;
