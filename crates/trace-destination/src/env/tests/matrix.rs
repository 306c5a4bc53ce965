//! Every variable alone and every pair of them: what each sets, which goes before which, and what a
//! value does that is empty or malformed. `docs/environment.md` is the same, printed.

use super::super::variables::{Reader, UNREAD, VARIABLES, Value, Variable};
use super::*;
use crate::server::ServerLocation;
use crate::unity_catalog::UnityCatalogLocation;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use trace_destination_testkit::check_page;

type Env = BTreeMap<String, String>;

/// How two variables depend on each other. Pairs that are not in a list are independent: together
/// they set what each sets alone.
const BEATS: &[(&str, &[&str])] = &[
    // A destination is named, so nothing else makes one.
    (
        "MLFLOW_TRACING_DESTINATION",
        &[
            "MLFLOW_TRACKING_URI",
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_EXPERIMENT_ID",
        ],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        &["OTEL_EXPORTER_OTLP_ENDPOINT"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        &["OTEL_EXPORTER_OTLP_HEADERS"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        &["OTEL_EXPORTER_OTLP_COMPRESSION"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        &["OTEL_EXPORTER_OTLP_TIMEOUT"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        &["OTEL_EXPORTER_OTLP_CERTIFICATE"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        &["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
        &["OTEL_EXPORTER_OTLP_CLIENT_KEY"],
    ),
    // The files of a user come last.
    ("MLFLOW_TRACKING_TOKEN", &["HOME"]),
    ("DATABRICKS_HOST", &["DATABRICKS_CONFIG_FILE", "HOME"]),
    (
        "DATABRICKS_TOKEN",
        &[
            "DATABRICKS_CONFIG_FILE",
            "HOME",
            "DATABRICKS_CLIENT_ID",
            "DATABRICKS_CLIENT_SECRET",
        ],
    ),
    (
        "UNITY_CATALOG_TOKEN",
        &["UNITY_CATALOG_CLIENT_ID", "UNITY_CATALOG_CLIENT_SECRET"],
    ),
    ("DATABRICKS_CONFIG_FILE", &["HOME"]),
    ("UNITY_CATALOG_URI", &["DATABRICKS_HOST"]),
];

/// The pairs that say more together than each alone: how an address is reached, halves of
/// credentials, the experiment of a store.
const WITH: &[(&str, &[&str])] = &[
    (
        "MLFLOW_TRACKING_URI",
        &[
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_EXPERIMENT_ID",
            "MLFLOW_WORKSPACE",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "MLFLOW_TRACKING_AUTH",
            "HOME",
        ],
    ),
    ("MLFLOW_EXPERIMENT_NAME", &["MLFLOW_EXPERIMENT_ID"]),
    ("MLFLOW_TRACKING_USERNAME", &["MLFLOW_TRACKING_PASSWORD"]),
    (
        "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT",
        &[
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            // Without an endpoint it is an error, whatever else makes a destination.
            "MLFLOW_TRACING_DESTINATION",
            "MLFLOW_TRACKING_URI",
            "MLFLOW_EXPERIMENT_NAME",
            "MLFLOW_EXPERIMENT_ID",
        ],
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &[
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        ],
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        &[
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        ],
    ),
    (
        "DATABRICKS_HOST",
        &[
            "DATABRICKS_TOKEN",
            "DATABRICKS_CLIENT_ID",
            "DATABRICKS_CLIENT_SECRET",
        ],
    ),
    ("DATABRICKS_CLIENT_ID", &["DATABRICKS_CLIENT_SECRET"]),
    (
        "DATABRICKS_CONFIG_PROFILE",
        &["DATABRICKS_CONFIG_FILE", "HOME", "DATABRICKS_HOST"],
    ),
    (
        "UNITY_CATALOG_URI",
        &[
            "UNITY_CATALOG_TOKEN",
            "UNITY_CATALOG_CLIENT_ID",
            "UNITY_CATALOG_CLIENT_SECRET",
            "UNITY_CATALOG_STORAGE_ROOT",
            "UNITY_CATALOG_TIMEOUT",
            "UNITY_CATALOG_CA_FILE",
            "UNITY_CATALOG_STORAGE_CREDENTIALS",
        ],
    ),
    (
        "DATABRICKS_HOST",
        &[
            "UNITY_CATALOG_STORAGE_ROOT",
            "UNITY_CATALOG_TIMEOUT",
            "UNITY_CATALOG_CA_FILE",
            "UNITY_CATALOG_STORAGE_CREDENTIALS",
        ],
    ),
    (
        "UNITY_CATALOG_CLIENT_ID",
        &["UNITY_CATALOG_CLIENT_SECRET", "UNITY_CATALOG_TOKEN_URL"],
    ),
];

/// Pairs that are an error.
const CONTRADICTS: &[(&str, &str)] = &[
    (
        "MLFLOW_TRACKING_INSECURE_TLS",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
    ),
    ("UNITY_CATALOG_ROOT", "UNITY_CATALOG_URI"),
    ("UNITY_CATALOG_ROOT", "DATABRICKS_HOST"),
];

fn listed(list: &[(&str, &[&str])], one: &str, other: &str) -> bool {
    list.iter().any(|(a, bs)| *a == one && bs.contains(&other))
}

/// A value of the right kind for a variable.
fn good(variable: &Variable, home: &Path) -> String {
    let text = match (variable.name, variable.value) {
        ("MLFLOW_TRACKING_URI", _) => "http://127.0.0.1:5000",
        ("DATABRICKS_HOST", _) => "workspace.example",
        ("DATABRICKS_CONFIG_PROFILE", _) => "OTHER",
        ("DATABRICKS_CONFIG_FILE", _) => return home.join("profiles").display().to_string(),
        ("UNITY_CATALOG_URI", _) => "http://127.0.0.1:8080",
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", _) => "http://127.0.0.1:4318/v1/traces",
        ("OTEL_EXPORTER_OTLP_ENDPOINT", _) => "http://127.0.0.1:4318",
        ("MLFLOW_TRACKING_AWS_SIGV4", _) => "false",
        (_, Value::Folder) => return home.display().to_string(),
        (_, Value::Destination) => "memory:matrix",
        (_, Value::TrackingUri | Value::Address) => "https://h.example/x",
        (_, Value::Text | Value::Hosts) => "some-text",
        (_, Value::Id | Value::Spans) => "7",
        (_, Value::Ratio) => "0.25",
        (_, Value::Millis) => "1500",
        (_, Value::Seconds) => "9",
        (_, Value::Bool) => "true",
        (_, Value::OneOf(words)) => match words {
            // Not the default, and the specific differs from the general.
            ["vended", other] => other,
            [first, other] if variable.name.contains("TRACES") => {
                let _ = first;
                other
            }
            words => words[0],
        },
        (name, Value::Pem) => {
            let file = if name.contains("TRACES") {
                "other.pem"
            } else {
                "one.pem"
            };
            return home.join(file).display().to_string();
        }
        (_, Value::File) => "/somewhere/file",
        (_, Value::Secret) => "hunter2secret",
        (_, Value::Headers) => "key=hunter2secret",
        (_, Value::StorageUrl) => "/srv/lake",
        (_, Value::Proxy) => "http://proxy.example:3128",
        (_, Value::Refused) => "kerberos",
    };
    // So that two variables of one kind differ.
    match variable.value {
        Value::Millis if variable.name.contains("TRACES") => "2500".to_owned(),
        Value::Headers if variable.name.contains("TRACES") => "other=hunter2secret".to_owned(),
        _ => text.to_owned(),
    }
}

/// Values that are an error, each of which names the variable.
fn bad(variable: &Variable) -> &'static [&'static str] {
    match (variable.name, variable.value) {
        ("MLFLOW_TRACKING_AWS_SIGV4", _) => &["true", "yes"],
        (_, Value::Destination) => &["nope:x", "a.b.c.d", "memory:", "\"memory:x\""],
        (_, Value::TrackingUri) => &[
            "./mlruns",
            "postgresql://db/x",
            "databricks",
            "localhost:5000",
        ],
        // It is looked at where it is used.
        (name, Value::Address) if name.starts_with("UNITY_CATALOG_URI") => {
            &["nope", "ftp://x", "x:1"]
        }
        (_, Value::Ratio) => &["half", "2", "-0.1", "NaN"],
        (_, Value::Spans) => &["0", "-1", "many", "1.5"],
        (_, Value::Millis | Value::Seconds) => &["-1", "1.5", "5s", "soon"],
        (_, Value::Bool) => &["yes", "on", "2"],
        (_, Value::OneOf(_)) => &["something-else"],
        (_, Value::Headers) => &["no-pair", "=x", "k=%FF"],
        (_, Value::Refused) => &["anything"],
        _ => &[],
    }
}

/// What an environment sets, by what it is read for: every value that one of the builders holds.
fn observed(env: &Env) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let environment = Environment::from_source(env.clone());
    let mut put = |context: &str, text: String| flatten(context, &text, &mut all);
    let pipeline = trace_destination_core::Pipeline::builder().with_env(env);
    put(
        "pipeline",
        pipeline.map_or_else(failed, |b| format!("{b:?}")),
    );
    let ratio = trace_destination_core::Pipeline::builder()
        .with_env(env)
        .and_then(|b| b.build());
    put("built", ratio.map_or_else(failed, |_| "ready".to_owned()));
    let to = environment.destination();
    put(
        "destination",
        to.map_or_else(failed, |to| format!("{to:?}")),
    );
    for (context, uri) in [
        ("mlflow", "http://127.0.0.1:5000?experiment_name=x"),
        ("otlp", "otlp+http://127.0.0.1:4318"),
        ("databricks", "databricks://?table=a.b.c_otel_spans"),
    ] {
        let uri: LocationUri = uri.parse().unwrap();
        let builder = ServerLocation::builder().with_uri(&uri).with_env(env);
        put(context, format!("{builder:?}"));
    }
    let uri: LocationUri = "uc://a.b.c".parse().unwrap();
    let table = UnityCatalogLocation::builder().with_uri(&uri).with_env(env);
    put("table", format!("{table:?}"));
    // Only an advice that an error may give.
    all.retain(|key, _| !key.contains("withheld"));
    all
}

fn failed(error: Error) -> String {
    format!("failed: {error:?}")
}

/// `Name { key: value, list: [a, b] }` as one entry for each value.
fn flatten(at: &str, text: &str, into: &mut BTreeMap<String, String>) {
    let text = text.trim();
    let open = text.find(['{', '[', '(']);
    let inner = open
        .filter(|_| text.ends_with(['}', ']', ')']))
        .map(|open| &text[open + 1..text.len() - 1]);
    let is_struct = |open: usize| text[..open].trim().chars().all(|c| c.is_alphanumeric());
    let Some(inner) = inner.filter(|_| open.is_some_and(is_struct)) else {
        into.insert(at.to_owned(), text.to_owned());
        return;
    };
    let (mut depth, mut quoted, mut from) = (0, false, 0);
    let mut parts = Vec::new();
    for (i, c) in inner.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    for part in parts
        .into_iter()
        .map(str::trim)
        .filter(|p| !p.is_empty() && *p != "..")
    {
        match part.split_once(": ") {
            Some((key, value))
                if key
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_\"-".contains(c)) =>
            {
                flatten(&format!("{at}.{key}"), value, into);
            }
            _ => {
                let key = part.split(['(', '{']).next().unwrap_or_default();
                flatten(&format!("{at}.{key}"), part, into);
            }
        }
    }
}

type Changes = BTreeMap<String, Option<String>>;

/// What differs from nothing set.
fn changes(of: &BTreeMap<String, String>, from: &BTreeMap<String, String>) -> Changes {
    let keys: BTreeSet<&String> = of.keys().chain(from.keys()).collect();
    keys.into_iter()
        .filter(|key| of.get(*key) != from.get(*key))
        .map(|key| (key.clone(), of.get(key).cloned()))
        .collect()
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let profiles = |name: &str| {
        format!(
            "[DEFAULT]\nhost = {name}.example\ntoken = hunter2secret\n\
             [OTHER]\nhost = other-{name}.example\ntoken = hunter2secret\n"
        )
    };
    std::fs::write(home.path().join("profiles"), profiles("file")).unwrap();
    std::fs::write(home.path().join(".databrickscfg"), profiles("home")).unwrap();
    for file in ["one.pem", "other.pem"] {
        let made = rcgen::generate_simple_self_signed(["h.example".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        std::fs::write(home.path().join(file), pem).unwrap();
    }
    std::fs::create_dir(home.path().join(".mlflow")).unwrap();
    std::fs::write(
        home.path().join(".mlflow/credentials"),
        "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = hunter2secret\n",
    )
    .unwrap();
    home
}

/// Without proxies, which are read by the HTTP client itself.
fn walked() -> impl Iterator<Item = &'static Variable> + Clone {
    VARIABLES.iter().filter(|v| v.reader != Reader::Http)
}

#[test]
fn every_variable_alone() {
    let home = home();
    let nothing = observed(&Env::new());
    for variable in walked() {
        let name = variable.name;
        let with = |value: &str| observed(&env(&[(name, value)]));
        assert_eq!(with(""), nothing, "{name} is set to nothing");
        let value = good(variable, home.path());
        let set = with(&value);
        let text = format!("{set:?}");
        assert!(!text.contains("hunter2secret"), "{name}: {text}");
        let beside: &[(&str, &str)] = match variable.reader {
            Reader::Table if name != "UNITY_CATALOG_URI" => {
                &[("UNITY_CATALOG_URI", "http://127.0.0.1:8080")]
            }
            _ => &[],
        };
        let nothing = observed(&env(beside));
        for bad in bad(variable) {
            let failed = observed(&env(&[beside, &[(name, *bad)]].concat()));
            let errors: Vec<_> = changes(&failed, &nothing).into_iter().collect();
            let said = errors
                .iter()
                .any(|(_, v)| v.as_deref().unwrap_or_default().contains(name));
            assert!(said, "{name}={bad} gives {errors:?}");
        }
    }
}

/// What is set besides, for pairs that need a third: the addresses that credentials are for, and one
/// half each of credentials.
const BASES: [&[&str]; 4] = [
    &[
        "MLFLOW_TRACKING_URI",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "UNITY_CATALOG_URI",
        "DATABRICKS_HOST",
    ],
    &["MLFLOW_TRACKING_PASSWORD", "DATABRICKS_CLIENT_SECRET"],
    &["MLFLOW_TRACKING_USERNAME", "DATABRICKS_CLIENT_ID"],
    &["UNITY_CATALOG_URI", "UNITY_CATALOG_CLIENT_SECRET"],
];

#[test]
fn every_pair() {
    let home = home();
    let values: BTreeMap<&str, String> = walked().map(|v| (v.name, good(v, home.path()))).collect();
    let set = |names: &[&str]| {
        let all = names
            .iter()
            .map(|name| ((*name).to_owned(), values[name].clone()));
        observed(&all.collect())
    };
    let nothing = set(&[]);
    let alone: BTreeMap<&str, Changes> = walked()
        .map(|v| (v.name, changes(&set(&[v.name]), &nothing)))
        .collect();
    let mut wrong = Vec::new();
    let mut together = BTreeSet::new();
    for (one, one_sets) in &alone {
        for (other, other_sets) in alone.iter().filter(|(n, _)| *n > one) {
            let both = changes(&set(&[one, other]), &nothing);
            match pair((one, one_sets), (other, other_sets), &both) {
                Ok(false) => {}
                Ok(true) => drop(together.insert([*one, *other])),
                Err(what) => wrong.push(what),
            }
        }
    }
    for (one, others) in WITH {
        for other in *others {
            let known = together.contains(&[*one, *other]) || together.contains(&[*other, *one]);
            let depends = |base: &[&str]| {
                let with = |names: &[&str]| set(&[base, names].concat());
                let nothing = with(&[]);
                let sets = |names: &[&str]| changes(&with(names), &nothing);
                let both = sets(&[one, other]);
                pair((one, &sets(&[one])), (other, &sets(&[other])), &both) != Ok(false)
            };
            if !known && !BASES.into_iter().any(depends) {
                wrong.push(format!("{one} and {other} are independent after all"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} pairs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Whether a pair says more than each alone; an error where that is not declared.
fn pair(
    (one, one_sets): (&str, &Changes),
    (other, other_sets): (&str, &Changes),
    both: &Changes,
) -> Result<bool, String> {
    let is_in = |list: &[(&str, &[&str])]| listed(list, one, other) || listed(list, other, one);
    let contradicts = |(a, b): &(&str, &str)| (*a, *b) == (one, other) || (*a, *b) == (other, one);
    if CONTRADICTS.iter().any(contradicts) {
        let text = format!("{both:?}");
        let told = text.contains(one) && text.contains(other) && text.contains("unset one of them");
        return match told {
            true => Ok(false),
            false => Err(format!("{one} and {other} do not contradict: {text}")),
        };
    }
    let (winner, loser) = match listed(BEATS, other, one) {
        true => (other_sets, one_sets),
        false => (one_sets, other_sets),
    };
    let mut expected = loser.clone();
    expected.extend(winner.clone());
    let shared = winner
        .iter()
        .any(|(k, v)| loser.get(k).is_some_and(|l| l != v));
    // Where one alone is an error, it stays one, and what else would be set there does not matter.
    let is_error = |k: &str, v: &str| k.contains(".deferred.") || v.starts_with("failed");
    let broken: BTreeSet<&str> = expected
        .iter()
        .filter(|(k, v)| v.as_deref().is_some_and(|v| is_error(k, v)))
        .map(|(k, _)| k.split('.').next().unwrap_or_default())
        .collect();
    let matters = |key: &String| {
        let context = key.split('.').next().unwrap_or_default();
        !broken.contains(context) || key.contains("deferred") || key == context
    };
    let of = |changes: &Changes| -> Changes {
        let kept = changes.iter().filter(|(k, _)| matters(k));
        kept.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let fits = match is_in(BEATS) {
        true => of(winner).iter().all(|(k, v)| both.get(k) == Some(v)),
        false => !shared && of(both) == of(&expected),
    };
    match (fits, is_in(WITH)) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(format!("{one} and {other} set {both:?}, not {expected:?}")),
    }
}

#[test]
fn the_documentation_prints_the_declaration() {
    let mut out = String::new();
    for reader in Reader::ALL {
        let _ = writeln!(out, "### {}\n", reader.title());
        let of_reader = VARIABLES.iter().filter(|v| v.reader == reader);
        if reader == Reader::Store {
            let names: Vec<_> = of_reader.map(|v| format!("`{}`", v.name)).collect();
            let _ = writeln!(
                out,
                "{}: as AWS, Azure, Google and the clients of stores name them.\n",
                names.join(", ")
            );
            continue;
        }
        out.push_str("| variable | value | unset or empty | meaning | before it counts | together with | otherwise than MLflow or OpenTelemetry |\n|---|---|---|---|---|---|---|\n");
        for v in of_reader {
            let before: Vec<_> = BEATS
                .iter()
                .filter(|(_, l)| l.contains(&v.name))
                .map(|(w, _)| *w)
                .collect();
            let with = WITH
                .iter()
                .filter(|(_, l)| l.contains(&v.name))
                .map(|(w, _)| *w);
            let with: BTreeSet<_> = with.collect();
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} | {} | {} |",
                v.name,
                v.value.title(),
                v.unset,
                v.meaning,
                code(before),
                code(with),
                v.differs
            );
        }
        out.push('\n');
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/environment.md");
    let mut unread = String::from("| variable | instead |\n|---|---|\n");
    for (name, advice) in UNREAD {
        let _ = writeln!(unread, "| `{name}` | {advice} |");
    }
    let mut wrong = String::from("| set together | |\n|---|---|\n");
    for (one, other) in CONTRADICTS {
        let _ = writeln!(wrong, "| `{one}`, `{other}` | an error that names both |");
    }
    for (name, generated) in [
        ("variables", out),
        ("variables without effect", unread),
        ("contradictions", wrong),
    ] {
        if let Err(differs) = check_page(&page, name, &generated) {
            panic!("{differs}");
        }
    }
}

fn code(names: impl IntoIterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The declaration is complete: no other variable is asked for.
#[test]
fn nothing_is_read_that_is_not_declared() {
    #[derive(Debug, Clone, Default)]
    struct Recording(Arc<std::sync::Mutex<BTreeSet<String>>>, Env);
    impl EnvSource for Recording {
        fn var(&self, name: &str) -> Result<Option<String>, Error> {
            self.0.lock().unwrap().insert(name.to_owned());
            self.1.var(name)
        }
    }
    let asked = Recording::default();
    for set in [
        vec![],
        vec![(
            "MLFLOW_TRACING_DESTINATION",
            "databricks://?table=a.b.c_otel_spans",
        )],
        vec![("MLFLOW_TRACING_DESTINATION", "uc://a.b.c?root=/tmp/x")],
        vec![
            ("MLFLOW_TRACING_DESTINATION", "uc://a.b.c"),
            ("UNITY_CATALOG_URI", "http://127.0.0.1:8080"),
            ("UNITY_CATALOG_CLIENT_ID", "i"),
            ("UNITY_CATALOG_CLIENT_SECRET", "s"),
        ],
        vec![("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")],
        vec![
            ("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "true"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ],
    ] {
        let source = Recording(asked.0.clone(), env(&set));
        let _ = Environment::from_source(source.clone()).builder();
    }
    let declared: BTreeSet<&str> = VARIABLES.iter().map(|v| v.name).collect();
    let others = [
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    ];
    let asked = asked.0.lock().unwrap();
    let undeclared: Vec<_> = asked
        .iter()
        .filter(|n| !declared.contains(n.as_str()) && !others.contains(&n.as_str()))
        .collect();
    assert!(undeclared.is_empty(), "{undeclared:?}");
    let unasked: Vec<_> = walked()
        .filter(|v| !asked.contains(v.name))
        .map(|v| v.name)
        .collect();
    assert!(unasked.is_empty(), "{unasked:?}");
}
