//! Aviary
