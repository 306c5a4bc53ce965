//! trace-destination
