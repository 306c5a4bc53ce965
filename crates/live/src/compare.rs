//! Two stores field by field, and the list of differences that are meant.

use super::NEWEST;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// How many kinds of differences a report shows.
const SHOWN: usize = 60;
/// How much of a differing value a report shows, in characters.
const EXCERPT: usize = 160;

/// One place where two documents differ, as a JSON pointer and the two values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) path: String,
    pub(super) ours: Option<Value>,
    pub(super) server: Option<Value>,
}

/// Every place where two JSON documents differ. Objects compare by key, whatever their order;
/// lists by position; numbers exactly, an integer is not the equal float.
pub(super) fn differences(ours: &Value, server: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(&mut String::new(), Some(ours), Some(server), &mut found);
    found
}

fn walk(
    path: &mut String,
    ours: Option<&Value>,
    server: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    if ours == server {
        return;
    }
    let mut step = |segment: &str, a: Option<&Value>, b: Option<&Value>| {
        let length = path.len();
        path.push('/');
        path.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        walk(path, a, b, found);
        path.truncate(length);
    };
    match (ours, server) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                step(key, Some(value), b.get(key));
            }
            for (key, value) in b.iter().filter(|(k, _)| !a.contains_key(*k)) {
                step(key, None, Some(value));
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                step(&i.to_string(), a.get(i), b.get(i));
            }
        }
        _ => found.push(Difference {
            path: path.clone(),
            ours: ours.cloned(),
            server: server.cloned(),
        }),
    }
}

/// A difference that is meant, with its reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The cases in which it must occur, also on the newest MLflow; `newest_…` means there alone.
    cases: Vec<String>,
    /// The cases of the newest MLflow in which it no longer occurs.
    #[serde(default)]
    except: Vec<String>,
    /// A JSON pointer in which `*` stands for one segment and a last `**` for any number.
    path: String,
    /// What is there on our side; anything where not given.
    ours: Option<Side>,
    /// What is there on the server's side; anything where not given.
    server: Option<Side>,
    /// Why it is right that they differ.
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Absent,
    Present,
    Is(Value),
    StartsWith(String),
}

impl Side {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Absent => value.is_none(),
            Self::Present => value.is_some(),
            Self::Is(expected) => value == Some(expected),
            Self::StartsWith(prefix) => value
                .and_then(Value::as_str)
                .is_some_and(|t| t.starts_with(prefix)),
        }
    }
}

impl Entry {
    fn is_about(&self, case: &str) -> bool {
        let plain = case.strip_prefix(NEWEST).unwrap_or(case);
        self.cases.iter().any(|c| c == case || c == plain) && !self.except.iter().any(|c| c == case)
    }

    fn matches(&self, difference: &Difference) -> bool {
        path_matches(&self.path, &difference.path)
            && self
                .ours
                .as_ref()
                .is_none_or(|s| s.matches(difference.ours.as_ref()))
            && self
                .server
                .as_ref()
                .is_none_or(|s| s.matches(difference.server.as_ref()))
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut path = path.split('/');
    for expected in pattern.split('/') {
        match (expected, path.next()) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (expected, Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
    path.next().is_none()
}

/// The differences that are meant.
#[derive(Debug)]
pub(super) struct Expected(Vec<Entry>);

impl Expected {
    pub(super) fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()))?;
        let entries: Vec<Entry> =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        match entries
            .iter()
            .find(|e| e.reason.trim().is_empty() || e.cases.is_empty())
        {
            Some(e) => Err(format!(
                "{}: {} lacks a reason or a case",
                file.display(),
                e.path
            )),
            None => Ok(Self(entries)),
        }
    }

    /// Whether exactly the listed differences occur; the text says how many, or what is wrong.
    pub(super) fn check(&self, case: &str, found: &[Difference]) -> Result<String, String> {
        let entries: Vec<_> = self.0.iter().filter(|e| e.is_about(case)).collect();
        let mut used = vec![0_usize; entries.len()];
        let mut unlisted = Vec::new();
        for difference in found {
            let mut listed = false;
            for (entry, used) in entries.iter().zip(&mut used) {
                if entry.matches(difference) {
                    *used += 1;
                    listed = true;
                }
            }
            if !listed {
                unlisted.push(difference);
            }
        }
        let mut report = String::new();
        if !unlisted.is_empty() {
            let _ = writeln!(
                report,
                "{} differences that are not expected:",
                unlisted.len()
            );
            report.push_str(&summary(&unlisted));
        }
        for (entry, _) in entries.iter().zip(&used).filter(|(_, used)| **used == 0) {
            let _ = writeln!(
                report,
                "the expected difference at {} no longer occurs; remove the entry ({})",
                entry.path, entry.reason
            );
        }
        if report.is_empty() {
            Ok(format!(
                "{} differences, all expected for {} listed reasons",
                found.len(),
                entries.len()
            ))
        } else {
            Err(report)
        }
    }
}

/// Differences by kind: identifiers in their paths count as one.
fn summary(differences: &[&Difference]) -> String {
    let mut kinds: BTreeMap<String, Vec<&Difference>> = BTreeMap::new();
    for difference in differences {
        let kind: Vec<_> = difference
            .path
            .split('/')
            .map(|s| if is_id(s) { "*" } else { s })
            .collect();
        kinds.entry(kind.join("/")).or_default().push(difference);
    }
    let mut text = String::new();
    for (kind, differences) in kinds.iter().take(SHOWN) {
        let example = differences[0];
        let _ = writeln!(
            text,
            "{kind} ({}×), e.g. {}\n  ours   {}\n  server {}",
            differences.len(),
            example.path,
            excerpt(example.ours.as_ref()),
            excerpt(example.server.as_ref())
        );
    }
    if kinds.len() > SHOWN {
        let _ = writeln!(text, "… and {} further kinds", kinds.len() - SHOWN);
    }
    text
}

fn is_id(segment: &str) -> bool {
    segment.starts_with("tr-")
        || (segment.len() == 16 && segment.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn excerpt(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "(absent)".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The part of a dump that belongs to one experiment.
pub(super) fn experiment_view(dump: &Value, name: &str) -> Result<Value, String> {
    let experiments = object(&dump["api"]["experiments"], "experiments")?;
    let (id, experiment) = experiments
        .iter()
        .find(|(_, e)| e["name"] == name)
        .ok_or_else(|| format!("MLflow shows no experiment `{name}`, only {experiments:?}"))?;
    let order = &dump["api"]["order"][name];
    let ids: Vec<&str> = order
        .as_array()
        .map(|a| a.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let of_api = |part: &str| -> Result<Value, String> {
        let all = object(&dump["api"][part], part)?;
        Ok(ids
            .iter()
            .filter_map(|id| Some(((*id).to_owned(), all.get(*id)?.clone())))
            .collect::<Map<_, _>>()
            .into())
    };
    let number = id.parse::<i64>().ok();
    let rows: Map<_, _> = object(&dump["rows"]["traces"], "rows")?
        .iter()
        .filter(|(_, t)| t["info"]["experiment_id"].as_i64() == number)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut row = dump["rows"]["experiments"][id].clone();
    if let Some(row) = row.as_object_mut() {
        // When each was made says nothing about what is in it.
        row.remove("creation_time");
        row.remove("last_update_time");
    }
    Ok(serde_json::json!({
        "experiment": experiment,
        "experiment_row": row,
        "order": order,
        "search_traces": of_api("search_traces")?,
        "get_trace": of_api("get_trace")?,
        "rows": rows,
    }))
}

/// Numbers of traces and spans a view shows by `search_traces`, by `get_trace` and in rows; an
/// error where the three disagree.
pub(super) fn counts(view: &Value) -> Result<(usize, usize), String> {
    let count = |part: &str| -> Result<(usize, usize), String> {
        let traces = object(&view[part], part)?;
        let spans = traces
            .values()
            .map(|t| t["spans"].as_object().map_or(0, Map::len))
            .sum();
        Ok((traces.len(), spans))
    };
    let (searched, got, rows) = (count("search_traces")?, count("get_trace")?, count("rows")?);
    if searched == got && got == rows {
        Ok(rows)
    } else {
        Err(format!(
            "(traces, spans): search_traces {searched:?}, get_trace {got:?}, rows {rows:?}"
        ))
    }
}

pub(super) fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("`{what}` is not in the dump"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn expected(entries: Value) -> Expected {
        Expected(serde_json::from_value(entries).unwrap())
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let a = json!({"same": [1, {"x": null}], "gone": 1, "number": 1, "text": "a", "list": [1, 2], "a/b~": true});
        let b = json!({"text": "b", "same": [1, {"x": null}], "new": 1, "number": 1.0, "list": [1], "a/b~": false});
        let paths: Vec<_> = differences(&a, &b).into_iter().map(|d| d.path).collect();
        assert_eq!(
            paths,
            ["/gone", "/number", "/text", "/list/1", "/a~1b~0", "/new"]
        );
        assert_eq!(differences(&a, &a), []);
    }

    #[test]
    fn an_unlisted_difference_fails_and_so_does_a_listed_one_that_is_gone() {
        let found = differences(
            &json!({"t": {"x": {"cost": null}}}),
            &json!({"t": {"x": {"cost": 2}}}),
        );
        let entry = |path: &str, server: Value| {
            expected(
                json!([{"cases": ["c"], "path": path, "ours": {"is": null}, "server": server, "reason": "r"}]),
            )
        };
        assert!(
            entry("/t/*/cost", json!("present"))
                .check("c", &found)
                .is_ok()
        );
        assert!(entry("/t/**", json!({"is": 2})).check("c", &found).is_ok());
        assert!(entry("/t/**", json!({"is": 3})).check("c", &found).is_err());
        assert!(entry("/t/*", json!("present")).check("c", &found).is_err());
        assert!(
            entry("/t/*/cost", json!("absent"))
                .check("c", &found)
                .is_err()
        );
        let gone = entry("/t/*/cost", json!("present"))
            .check("c", &[])
            .unwrap_err();
        assert!(gone.contains("remove the entry"), "{gone}");
        assert!(
            entry("/t/*/cost", json!("present"))
                .check("other", &[])
                .is_ok()
        );
        assert!(
            entry("/t/*/cost", json!("present"))
                .check("other", &found)
                .is_err()
        );
        assert!(
            entry("/t/*/cost", json!("present"))
                .check("newest_c", &found)
                .is_ok()
        );
        let except = |cases: &str, except: &str| {
            expected(
                json!([{"cases": [cases], "except": [except], "path": "/t/**", "reason": "r"}]),
            )
        };
        assert!(except("c", "newest_c").check("newest_c", &[]).is_ok());
        assert!(except("c", "newest_c").check("newest_c", &found).is_err());
        assert!(except("c", "newest_c").check("c", &found).is_ok());
        assert!(except("newest_c", "").check("c", &found).is_err());
    }
}
