//! aviary-actors
