//! The `replay` example, run as its users run it.
#![cfg(feature = "experiment")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use trace_destination_otlp::sample;

/// Builds the example, with the features and into the folder of every other build, and finds it by
/// what cargo says of it.
fn replay_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--message-format=json",
                "--example",
                "replay",
            ])
            .args([
                "--manifest-path",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            ])
            .output()
            .unwrap();
        let messages = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{messages}\n{errors}");
        messages
            .lines()
            .filter(|l| l.contains(r#""name":"replay""#))
            .find_map(|l| l.split_once(r#""executable":""#)?.1.split_once('"'))
            .map(|(path, _)| PathBuf::from(path))
            .unwrap()
    })
}

struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn replay(folder: &Path, args: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(replay_binary())
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    Ran {
        status: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn spans_in(database: &Path) -> i64 {
    let database = rusqlite::Connection::open(database).unwrap();
    let spans = database.query_row("SELECT count(*) FROM spans", (), |row| row.get(0));
    spans.unwrap()
}

fn captured_jsonl() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../otlp/tests/data/agents.otlp.jsonl")
}

#[test]
fn every_span_of_either_format_reaches_every_destination() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("captured.binpb"), sample::captured()).unwrap();
    let jsonl = captured_jsonl();
    for (i, file) in ["captured.binpb", jsonl.to_str().unwrap()]
        .into_iter()
        .enumerate()
    {
        let [a, b] = ["a", "b"].map(|n| format!("{n}{i}.db"));
        let uris = [&a, &b].map(|name| format!("sqlite:///{name}?experiment_name=replayed"));
        let ran = replay(folder.path(), &[file, &uris[0], &uris[1], "memory:also"]);
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        assert!(
            ran.out.starts_with("252 spans in 44 traces read from "),
            "{}",
            ran.out
        );
        assert_eq!(ran.out.matches(": 252 stored\n").count(), 3, "{}", ran.out);
        // No terminal, no bar.
        assert_eq!(ran.err, "");
        for name in [a, b] {
            assert_eq!(spans_in(&folder.path().join(name)), 252);
        }
    }
}

/// Several requests in one file, as the Collector writes them, with everything OTLP can say.
#[test]
fn every_made_span_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut spans = 0;
    for request in sample::generated() {
        bytes.extend(u32::try_from(request.len()).unwrap().to_be_bytes());
        bytes.extend(&request);
        for group in trace_destination_otlp::decode_protobuf(&request).unwrap() {
            spans += i64::try_from(group.spans.len()).unwrap();
        }
    }
    std::fs::write(folder.path().join("made.bin"), bytes).unwrap();
    let ran = replay(
        folder.path(),
        &["made.bin", "sqlite:///made.db?experiment_name=made"],
    );
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.out.contains(&format!(": {spans} stored\n")),
        "{}",
        ran.out
    );
    assert_eq!(spans_in(&folder.path().join("made.db")), spans);
}

#[test]
fn spans_that_were_not_stored_are_exit_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let jsonl = captured_jsonl();
    let jsonl = jsonl.to_str().unwrap();
    std::fs::write(folder.path().join("text.db"), "this is no database at all").unwrap();
    let bad = "sqlite:///text.db?experiment_name=x";
    let good = "sqlite:///good.db?experiment_name=x";
    let ran = replay(folder.path(), &[jsonl, bad, good, "--timeout", "20"]);
    assert_eq!(ran.status, 1, "{}{}", ran.out, ran.err);
    let line = ran.out.lines().find(|l| l.contains("text.db")).unwrap();
    assert!(line.contains(": 0 stored, 252 lost ("), "{line}");
    assert!(line.contains("): "), "no reason: {line}");
    assert_eq!(spans_in(&folder.path().join("good.db")), 252);
    let text = std::fs::read(folder.path().join("text.db")).unwrap();
    assert_eq!(text, b"this is no database at all");

    // A span that is none: the others are stored, and the count shows it.
    let ids = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174""#;
    let spans = format!(r#"{{{ids},"name":"good"}},{{{ids},"name":5}}"#);
    let line = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    std::fs::write(folder.path().join("bad-span.jsonl"), line).unwrap();
    let ran = replay(folder.path(), &["bad-span.jsonl", "memory:x"]);
    assert_eq!(ran.status, 1, "{}{}", ran.out, ran.err);
    assert!(
        ran.out
            .contains("1 invalid span not sent; the first is line 1: resourceSpans[0].scopeSpans[0].spans[1]: decode OTLP span: `name` is `5`, expected a text"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("memory:x: 1 stored"), "{}", ran.out);
}

/// Signals share a file where a collector writes all of them there.
#[test]
fn what_mlflow_takes_is_stored_and_other_signals_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../otlp/tests/data/cases");
    for (name, spans) in [
        ("mixed_signals.jsonl", 3),
        ("bad_resource.jsonl", 3),
        ("bad_resource.binpb", 2),
        ("bad_text_in_span.jsonl", 2),
        ("bad_text_in_span.binpb", 2),
        ("short_status_names.jsonl", 5),
        ("duplicate_json_key.jsonl", 2),
        ("short_trace_id.jsonl", 1),
        ("short_trace_id.binpb", 1),
    ] {
        let file = cases.join(name);
        let uri = format!("sqlite:///{name}.db?experiment_name=x");
        let ran = replay(folder.path(), &[file.to_str().unwrap(), &uri]);
        assert_eq!(ran.status, 0, "{name}: {}{}", ran.out, ran.err);
        assert!(
            ran.out.contains(&format!(": {spans} stored\n")),
            "{}",
            ran.out
        );
        assert_eq!(spans_in(&folder.path().join(format!("{name}.db"))), spans);
        let passed_over = ran
            .out
            .contains("2 requests of metrics and logs passed over\n");
        assert_eq!(passed_over, name == "mixed_signals.jsonl", "{}", ran.out);
    }

    let file = cases.join("snake_case.jsonl");
    let ran = replay(folder.path(), &[file.to_str().unwrap(), "memory:x"]);
    assert_eq!(ran.status, 2, "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("camelCase") && ran.err.contains("hex"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("metrics"), "{}", ran.err);
}

#[test]
fn a_wrong_file_or_command_line_is_exit_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let jsonl = captured_jsonl();
    let whole = std::fs::read_to_string(&jsonl).unwrap();
    for (name, text) in [
        ("cut.jsonl", &whole[..1000]),
        (
            "late.jsonl",
            &format!("{}\n{}", whole.trim(), &whole[..1000]),
        ),
        ("prose.jsonl", "It was a dark and stormy night."),
        ("metrics.jsonl", r#"{"resourceMetrics":[]}"#),
        ("none.jsonl", r#"{"resourceSpans":[]}"#),
        ("empty.binpb", ""),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let cut = &sample::captured()[..300_000];
    std::fs::write(folder.path().join("cut.binpb"), cut).unwrap();
    let jsonl = jsonl.to_str().unwrap();
    for (args, says) in [
        (
            &["absent.jsonl", "memory:x"][..],
            "absent.jsonl: there is no such file",
        ),
        (
            &["cut.jsonl", "memory:x"],
            "cut.jsonl: line 1: the JSON text ends in the middle",
        ),
        (&["cut.binpb", "memory:x"], "cut.binpb: it is truncated"),
        (
            &["prose.jsonl", "memory:x"],
            "prose.jsonl: it is not a file of OTLP traces",
        ),
        (
            &["metrics.jsonl", "memory:x"],
            "metrics.jsonl: it holds 1 request of metrics or logs and no spans",
        ),
        (&["none.jsonl", "memory:x"], "none.jsonl: it holds no spans"),
        (&["empty.binpb", "memory:x"], "empty.binpb: it is empty"),
        (&[jsonl], "<URI>..."),
        (&[jsonl, "nonsense"], "`nonsense` has no scheme"),
        (&[jsonl, "nonsense:x"], "no backend understands `nonsense:`"),
        #[cfg(not(feature = "unity-catalog"))]
        (&[jsonl, "uc://a.b.c"], "unity-catalog"),
        (&[jsonl, "memory:x", "discard"], "`discard` is not a place"),
    ] {
        let ran = replay(folder.path(), args);
        assert_eq!(ran.status, 2, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(says), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }

    // What came before the damage is stored, and counted.
    let ran = replay(
        folder.path(),
        &["late.jsonl", "sqlite:///late.db?experiment_name=x"],
    );
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("late.jsonl: line 2: "), "{}", ran.err);
    assert!(ran.out.contains(": 252 stored"), "{}", ran.out);
    assert_eq!(spans_in(&folder.path().join("late.db")), 252);

    // What follows it too.
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../otlp/tests/data/cases");
    let case = |name: &str| cases.join(name).to_str().unwrap().to_owned();
    let ran = replay(folder.path(), &[&case("damaged_line.jsonl"), "memory:x"]);
    assert_eq!(ran.status, 2, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("memory:x: 4 stored"), "{}", ran.out);
    assert!(
        ran.out.contains("3 damaged places passed over"),
        "{}",
        ran.out
    );
    for line in [2, 4, 5] {
        let place = format!("damaged_line.jsonl: line {line}: ");
        assert_eq!(ran.err.matches(&place).count(), 1, "{}", ran.err);
    }
    let mut many = whole.trim().to_owned();
    (0..1000).for_each(|n| many.push_str(&format!("\nGET /{n} 200")));
    std::fs::write(folder.path().join("many.jsonl"), &many).unwrap();
    let ran = replay(folder.path(), &["many.jsonl", "memory:x"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.out.contains("1000 damaged places passed over"),
        "{}",
        ran.out
    );
    assert!(
        ran.err.ends_with("980 damaged places more\n"),
        "{}",
        ran.err
    );

    let help = replay(folder.path(), &["--help"]);
    assert_eq!(help.status, 0);
    assert!(help.out.contains("Exit status: "), "{}", help.out);
}
