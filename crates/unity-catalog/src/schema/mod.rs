//! The shapes a table of spans may have.
