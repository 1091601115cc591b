//! Aviary
fn main() {}
