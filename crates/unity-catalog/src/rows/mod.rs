//! From spans to rows.
