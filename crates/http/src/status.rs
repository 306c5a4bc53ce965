//! Tables of the meaning of statuses. They are data, so that the code, the tests and the
//! documentation of a backend use the same table.

use crate::failure::Transport;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use trace_destination_core::{ErrorKind, Retry};

/// What is done with a request that did not succeed, and with its spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The same request is sent again, at growing intervals or when `Retry-After` allows.
    Resend,
    /// The location seems wrong for good: its spans are kept, and it is tried again at growing
    /// intervals.
    Keep,
    /// A span may be at fault: the spans are sent in parts, and those that are rejected alone are
    /// refused.
    Apart,
    /// The server failed and may have stored a part, and OTLP does not allow the same request
    /// again. So an empty request is sent first. If it succeeds, the spans are sent in parts; if
    /// not, they are kept.
    Doubt,
    /// The same request is sent again; if it keeps failing, the spans are sent in parts.
    ResendThenApart,
}

impl Outcome {
    /// The retry status of the error, with the delay that the server asked for.
    pub fn retry(self, delay: Option<std::time::Duration>) -> Retry {
        match self {
            Self::Resend | Self::ResendThenApart => delay.map_or(Retry::Backoff, Retry::After),
            Self::Keep | Self::Apart | Self::Doubt => Retry::Never,
        }
    }

    /// Its name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resend => "resent",
            Self::Keep => "kept",
            Self::Apart => "tried apart",
            Self::Doubt => "in doubt",
            Self::ResendThenApart => "resent, then tried apart",
        }
    }

    /// Whether spans may be lost if a server answers so for a moment: those of the requests it
    /// answered.
    pub fn may_cost(self) -> bool {
        matches!(self, Self::Apart)
    }
}

/// A row of a table: answers with the same meaning.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The server's own names for the error, in capitals; empty means any. A leading `*` matches
    /// any beginning.
    pub codes: &'static [&'static str],
    /// Statuses; empty means any.
    pub statuses: &'static [RangeInclusive<u16>],
    /// The kind of the public error.
    pub kind: ErrorKind,
    /// What is done with the request.
    pub outcome: Outcome,
    /// The suggested fix.
    pub mend: &'static str,
}

impl Row {
    /// A row for statuses, whatever name the server gives the error.
    pub const fn new(
        statuses: &'static [RangeInclusive<u16>],
        kind: ErrorKind,
        outcome: Outcome,
        mend: &'static str,
    ) -> Self {
        Self {
            codes: &[],
            statuses,
            kind,
            outcome,
            mend,
        }
    }

    /// Restricts the row to these names of the server.
    #[must_use]
    pub const fn of_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.codes = codes;
        self
    }

    fn covers(&self, status: u16, code: Option<&str>) -> bool {
        let named = |pattern: &&str| {
            code.is_some_and(|code| match pattern.strip_prefix('*') {
                Some(end) => code.ends_with(end),
                None => code == *pattern,
            })
        };
        (self.codes.is_empty() || self.codes.iter().any(named))
            && (self.statuses.is_empty() || self.statuses.iter().any(|s| s.contains(&status)))
    }

    /// The statuses and names, as documentation writes them.
    fn title(&self) -> String {
        let status = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
            (one, same) if one == same => one.to_string(),
            (300, 399) => "any 3xx".to_owned(),
            (400, 499) => "any other 4xx".to_owned(),
            (500, 599) => "any other 5xx".to_owned(),
            (0, u16::MAX) => "anything else".to_owned(),
            (from, to) => format!("{from} to {to}"),
        };
        let statuses: Vec<String> = self.statuses.iter().map(status).collect();
        let codes: Vec<String> = self.codes.iter().map(|c| format!("`{c}`")).collect();
        let parts = [statuses.join(", "), codes.join(", ")];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        parts.join(" ")
    }
}

/// The meaning of every answer of one kind of server. The first row that matches counts.
#[derive(Clone, Copy, Debug)]
pub struct StatusTable(pub &'static [Row]);

/// The meaning of answers that no row matches.
const ELSE: Row = Row::new(
    &[0..=u16::MAX],
    ErrorKind::Unsupported,
    Outcome::Keep,
    "look into the server's log, and check its version and the address",
);

impl StatusTable {
    /// The meaning of an answer; `None` for success.
    pub fn row(&self, status: u16, code: Option<&str>) -> Option<&'static Row> {
        if (200..300).contains(&status) {
            return None;
        }
        let found = self.0.iter().find(|row| row.covers(status, code));
        Some(found.unwrap_or(&ELSE))
    }

    /// The table as Markdown. `no_status` adds rows for events without a status (what happens, what
    /// is done, the fix); rows for requests without an answer follow.
    pub fn markdown(
        &self,
        no_status: &[(&str, Outcome, &str)],
        transport_mend: impl Fn(Transport) -> &'static str,
    ) -> String {
        let mut out = String::from(
            "| answer | its spans | lost in a bad moment | mend |\n|---|---|---|---|\n",
        );
        let mut line = |what: &str, outcome: Outcome, mend: &str| {
            let cost = match outcome.may_cost() {
                true => "at most those",
                false => "0",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "| {what} | {} | {cost} | {mend} |", outcome.name());
        };
        for row in self.0.iter().chain([&ELSE]) {
            line(&row.title(), row.outcome, row.mend);
        }
        for (what, outcome, mend) in no_status {
            line(what, *outcome, mend);
        }
        for class in Transport::ALL {
            line(class.cause(), class.outcome(), transport_mend(class));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: StatusTable = StatusTable(&[
        Row::new(&[], ErrorKind::NotFound, Outcome::Keep, "a").of_codes(&["*NOT_FOUND", "GONE"]),
        Row::new(&[500..=500], ErrorKind::InvalidConfig, Outcome::Keep, "b").of_codes(&["OFF"]),
        Row::new(
            &[429..=429, 503..=503],
            ErrorKind::Throttled,
            Outcome::Resend,
            "c",
        ),
        Row::new(&[500..=599], ErrorKind::Unavailable, Outcome::Doubt, "d"),
    ]);

    #[test]
    fn the_first_row_that_fits_counts() {
        for (status, code, mend) in [
            (200, Some("GONE"), None),
            (299, None, None),
            (400, Some("TABLE_NOT_FOUND"), Some("a")),
            (500, Some("GONE"), Some("a")),
            (500, Some("GONE_AWAY"), Some("d")),
            (500, Some("OFF"), Some("b")),
            (501, Some("OFF"), Some("d")),
            (429, None, Some("c")),
            (503, None, Some("c")),
            (101, None, Some(ELSE.mend)),
            (418, Some(""), Some(ELSE.mend)),
            (999, None, Some(ELSE.mend)),
        ] {
            let found = TABLE.row(status, code).map(|row| row.mend);
            assert_eq!(found, mend, "{status} {code:?}");
        }
    }

    #[test]
    fn as_markdown() {
        let text = TABLE.markdown(&[("a web page", Outcome::Keep, "e")], |_| "f");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "| `*NOT_FOUND`, `GONE` | kept | 0 | a |");
        assert_eq!(lines[3], "| 500 `OFF` | kept | 0 | b |");
        assert_eq!(lines[4], "| 429, 503 | resent | 0 | c |");
        assert_eq!(lines[5], "| any other 5xx | in doubt | 0 | d |");
        assert!(lines[6].starts_with("| anything else | kept | 0 |"));
        assert_eq!(lines[7], "| a web page | kept | 0 | e |");
        assert_eq!(lines.len(), 8 + Transport::ALL.len());
    }
}
