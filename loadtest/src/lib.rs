//! aviary-loadtest
