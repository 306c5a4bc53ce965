//! Templates over every backend: what names of tenants can reach, and what they cannot.
#![cfg(all(feature = "experiment", feature = "server", feature = "unity-catalog"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use proptest::prelude::*;
use std::collections::HashMap;
use tempfile::TempDir;
use trace_destination::{
    Destination, Error, ErrorKind, LocationUri, Template, destination, location,
};

/// One template for each place in which a backend lets names stand.
fn templates(dir: &TempDir) -> Vec<(Template, String)> {
    let dir = dir.path().canonicalize().unwrap();
    let dir = dir.display();
    [
        format!("sqlite:///{dir}/m.db?experiment_name={{tenant}}"),
        format!("sqlite:///{dir}/m.db?experiment_name=t/{{tenant}}&create=false"),
        format!("sqlite:///{dir}/{{tenant}}.db?experiment_name=traces"),
        format!("sqlite:///{dir}/{{tenant}}?experiment_name=traces"),
        format!("sqlite:///{dir}/{{tenant}}/m.db?experiment_name=traces"),
        format!("uc://main.traces.{{tenant}}?root={dir}/lake"),
        format!("uc://main.{{tenant}}?root={dir}/lake"),
        format!("uc://main.{{tenant}}.agents?root={dir}/lake"),
        format!("uc:Main.traces.t_{{tenant}}?root={dir}/lake"),
        "uc://main.traces.{tenant}?server=http://127.0.0.1:1".into(),
        "http://127.0.0.1:1?experiment_name={tenant}".into(),
        "https://127.0.0.1:1/base?experiment_name=x&workspace={tenant}".into(),
        "memory:{tenant}".into(),
    ]
    .into_iter()
    .map(|text| (Template::new(&text).unwrap(), text))
    .collect()
}

fn to(template: &Template, tenant: &str) -> Result<Destination, Error> {
    template.destination([("tenant", tenant)])
}

/// Names that once reached another place, option or tenant, and their neighbours.
fn hostile() -> Vec<String> {
    let long = "x".repeat(9000);
    let mut names: Vec<String> = [
        "acme",
        "Acme",
        "ACME",
        "..",
        "../x",
        "a/b",
        "a%2Fb",
        "a\\b",
        "a%5Cb",
        "a%00b",
        "a\u{0}b",
        "\u{2025}",
        "\u{ff0e}\u{ff0e}",
        "a\u{202e}b",
        "a.b",
        "a.b.c",
        "a#b",
        "a%23b",
        "a?mode=memory",
        "a&create=false",
        "a%26create=false",
        "a&artifact_root=s3://evil/x",
        "a&experiment_id=0",
        "a&experiment_name=b",
        "a,memory:evil",
        "a%2Cmemory:evil",
        "a,sqlite:///evil.db?experiment_name=x",
        "a,otlp+http://127.0.0.1:9",
        "a,http://127.0.0.1:9?experiment_name=x",
        "a?root=evil",
        "a?server=http://127.0.0.1:9",
        "a&root=evil",
        "a,discard",
        "discard",
        "unset",
        "",
        " ",
        "a b",
        "\ta\n",
        "a\r\nX: y",
        "'; DROP TABLE experiments;--",
        "a\";--",
        "Default",
        "default",
        "mlflow_experiment_trace",
        "-",
        "@",
        "_delta_log",
        ".",
        "%2e%2e",
        "%252e%252e",
        "a%zz",
        "\u{130}",
        "stra\u{df}e",
        "K\u{212a}",
        "kraft",
        "\u{212a}raft",
        "Kraft",
        "\u{131}",
        "\u{ff41}cme",
        "acme ",
        "acme.",
        "acme\u{200b}",
        "e\u{301}",
        "\u{e9}",
        "m.db",
        "m.db-wal",
        "acme-wal",
        "acme-shm",
        "mlruns",
        "con",
        "nul.db",
        "information_schema",
        "//x",
        "/",
        "@h",
        "a@b",
        "h:80",
        ":",
        "[::1]",
        "x_otel_spans",
        "mlflow_experiment_trace_otel_spans",
        "%7Btenant%7D",
        "{tenant}",
        "zqx0q0q",
        "workspaces",
    ]
    .map(str::to_owned)
    .into();
    names.push(long);
    names
}

/// The URI a template would have with this name in its hole, decoded.
fn components(uri: &LocationUri) -> (String, Option<String>, String, Vec<(String, String)>) {
    let pairs = uri.query_pairs();
    (
        uri.scheme().to_owned(),
        uri.authority().map(str::to_owned),
        uri.path().to_owned(),
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    )
}

/// Whether one hole is all that differs between the destinations of two names, and holds exactly
/// these names.
fn differ_in_the_name(one: (&LocationUri, &str), other: (&LocationUri, &str)) -> bool {
    let same = |a: &str, b: &str| {
        let holds = |text: &str, name: &str| {
            text.match_indices(name)
                .map(|(i, _)| (text[..i].to_owned(), text[i + name.len()..].to_owned()))
                .collect::<Vec<_>>()
        };
        a == b
            || holds(a, one.1)
                .iter()
                .any(|split| holds(b, other.1).contains(split))
    };
    let (a, b) = (components(one.0), components(other.0));
    a.0 == b.0
        && same(a.1.as_deref().unwrap_or("-"), b.1.as_deref().unwrap_or("-"))
        && same(&a.2, &b.2)
        && a.3.len() == b.3.len()
        && a.3
            .iter()
            .zip(&b.3)
            .all(|(a, b)| a.0 == b.0 && same(&a.1, &b.1))
}

#[test]
fn no_name_of_a_tenant_reaches_another_place_option_or_tenant() {
    let dir = TempDir::new().unwrap();
    for (template, text) in templates(&dir) {
        let plain = to(&template, "plain").unwrap();
        let plain = plain.locations()[0].uri();
        let mut places: HashMap<String, String> = HashMap::new();
        let mut accepted = 0;
        for name in hostile() {
            match to(&template, &name) {
                Ok(destination) => {
                    accepted += 1;
                    assert_eq!(destination.locations().len(), 1, "{text} {name:?}");
                    let uri = destination.locations()[0].uri();
                    assert!(
                        differ_in_the_name((plain, "plain"), (uri, &name)),
                        "{text} {name:?}: {uri}"
                    );
                    assert_eq!(*uri, uri.to_string().parse::<LocationUri>().unwrap());
                    // SQLite and memory compare exactly; whatever else may fold.
                    let place = match text.contains("m.db?") || text.starts_with("memory") {
                        true => uri.to_string(),
                        false => uri.to_string().to_lowercase(),
                    };
                    if let Some(other) = places.insert(place, name.clone()) {
                        panic!("{text}: {name:?} and {other:?} are one place, {uri}");
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidName, "{text}: {error}");
                    let shown = error.to_string();
                    assert!(shown.contains("the hole `{tenant}` of `"), "{shown}");
                    assert!(error.mend_hint().is_some(), "{shown}");
                    assert!(!shown.contains(char::is_control), "{shown:?}");
                }
            }
        }
        assert!(
            accepted > 0 && accepted < hostile().len(),
            "{text}: {accepted}"
        );
    }
}

#[test]
fn what_each_place_takes_and_refuses() {
    let dir = TempDir::new().unwrap();
    let all = templates(&dir);
    let template = |start: &str| {
        let found = all.iter().find(|(_, text)| text.contains(start));
        &found.unwrap().0
    };
    for (start, fits, unfit) in [
        (
            "m.db?experiment_name={tenant}",
            &["Acme", "acme", "a/b", "stra\u{df}e", "a,b&c=d?e#f", ".."][..],
            &["Default", "", "a\nb", "acme ", "a\u{202e}b"][..],
        ),
        (
            "/{tenant}?experiment_name",
            &["acme", "acme.com", "a-b_c.db", "console"],
            &[
                "Acme",
                "acme-wal",
                "a.db-journal",
                "mlruns",
                "con",
                "..",
                ".x",
                "a/b",
                "a\\b",
            ],
        ),
        (
            "/{tenant}.db",
            &["acme", "acme-wal", "mlruns"],
            &["con", "Acme", "x."],
        ),
        ("/{tenant}/m.db", &["acme"], &["mlruns", "nul", "..", "."]),
        (
            "uc://main.traces.{tenant}?root",
            &["acme", "a-b_c", "default", "0"],
            &[
                "Acme",
                "\u{212a}raft",
                "mlflow_experiment_trace",
                "a.b",
                "_x",
                "-",
                "a@b",
                "\u{e9}",
            ],
        ),
        (
            "uc://main.{tenant}?root",
            &["acme", "mlflow_experiment_trace"],
            &["default", "information_schema", "_delta_log"],
        ),
        (
            "http://127.0.0.1:1?experiment_name={tenant}",
            &["acme", "a/b", "a,b", "o'neil"],
            &["Acme", "\u{e9}", "default", "acme ", "\u{ff41}cme"],
        ),
        (
            "workspace={tenant}",
            &["team-a"],
            &["default", "Team", "a b", "x\ty"],
        ),
        ("memory:{tenant}", &["Acme", "acme", "a,b"], &["", "//x"]),
    ] {
        for name in fits {
            let made = to(template(start), name);
            assert!(made.is_ok(), "{start} {name:?}: {made:?}");
        }
        for name in unfit {
            assert!(to(template(start), name).is_err(), "{start} {name:?}");
        }
    }
}

#[test]
fn holes_elsewhere_are_errors_when_the_template_is_made() {
    for text in [
        "{tenant}:x",
        "http://{tenant}?experiment_name=x",
        "http://h:{tenant}?experiment_name=x",
        "http://h/{tenant}?experiment_name=x",
        "http://h?experiment_id={tenant}",
        "http://h?create={tenant}&experiment_name=x",
        "sqlite:///x.db?artifact_root={tenant}&experiment_name=x",
        "sqlite:///x.db?{tenant}=x",
        "sqlite://{tenant}/x.db?experiment_name=x",
        "uc://{tenant}.s.p",
        "uc://main.s.p?root={tenant}",
        "uc://main.s.p?server=http://{tenant}",
        "uc://main.s.p.{tenant}",
        "otlp+http://h:4318/{tenant}",
        "otlp+http://{tenant}:4318",
        "databricks://{tenant}?table=a.b.c_otel_spans",
        "databricks://p?table={tenant}.b.c_otel_spans",
        "databricks://p?table=a.{tenant}.c_otel_spans",
        "databricks://p?table=a.b.{tenant}",
        // What a fixed place would be refused for.
        "sqlite:///x.db?experiment_name={tenant}&colour=red",
        "uc://main.s.{tenant}?root=/a&server=http://h",
        "sqlite:///m.db?experiment_name=a-{tenant},sqlite:///m.db?experiment_name=b",
        "memory:{tenant},discard",
    ] {
        let error = Template::new(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}: {error}");
        assert!(error.mend_hint().is_some(), "{text}: {error}");
        assert!(!error.to_string().contains("zqx"), "{error}");
    }
}

#[test]
fn a_table_of_databricks_keeps_its_ending() {
    // Where Databricks is not configured, that is said when the template is made.
    match Template::new("databricks://p?table=main.agents.{tenant}_otel_spans") {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains("Databricks"), "{error}");
        }
        Ok(template) => assert!(to(&template, "mlflow_experiment_trace").is_err()),
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_to_another_tenant_is_refused() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("globex")).unwrap();
    std::os::unix::fs::symlink(root.join("globex"), root.join("acme")).unwrap();
    std::fs::write(root.join("globex.db"), "").unwrap();
    std::os::unix::fs::symlink("globex.db", root.join("acme.db")).unwrap();
    let root = root.display();
    for text in [
        format!("sqlite:///{root}/{{tenant}}/m.db?experiment_name=x"),
        format!("sqlite:///{root}/{{tenant}}.db?experiment_name=x"),
    ] {
        let template = Template::new(&text).unwrap();
        assert!(to(&template, "globex").is_ok());
        let error = to(&template, "acme").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName);
        assert!(error.to_string().contains("another one"), "{error}");
        assert!(!error.to_string().contains("globex"), "{error}");
    }
    // A link above the hole is the same for everybody.
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    let text = format!("sqlite:///{root}/link/{{tenant}}.db?experiment_name=x");
    let linked = Template::new(&text).unwrap();
    assert_eq!(
        to(&linked, "globex").unwrap().to_string(),
        format!("sqlite:///{root}/globex.db?experiment_name=x")
    );
}

#[test]
fn what_is_relative_is_resolved_once() {
    let template = Template::new("uc://main.agents.{tenant},memory:audit").unwrap();
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    let lake = format!("root={}", here.join("lakehouse").display());
    assert!(template.to_string().contains(&lake), "{template}");
    let destination = to(&template, "acme").unwrap().to_string();
    assert!(destination.contains(&lake), "{destination}");
    assert!(destination.starts_with("memory:audit,uc://main.agents.acme?"));
}

#[test]
fn one_name_is_one_value() {
    let dir = TempDir::new().unwrap();
    for (template, text) in templates(&dir) {
        let (a, b) = (
            to(&template, "acme").unwrap(),
            to(&template, "acme").unwrap(),
        );
        let same = std::ptr::eq(a.locations().as_ptr(), b.locations().as_ptr());
        assert!(same, "{text} was made again");
    }
}

#[test]
fn a_single_location_is_no_list() {
    assert_eq!(
        location(" memory:a%2Cb ").unwrap().to_string(),
        "memory:a%2Cb"
    );
    for text in [
        "memory:a,memory:b",
        "memory:a,",
        "discard",
        " unset ",
        "",
        "a",
    ] {
        let error = location(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        assert!(error.mend_hint().is_some(), "{error}");
    }
    assert_eq!(
        destination("memory:a,memory:b").unwrap().locations().len(),
        2
    );
}

#[test]
fn only_ascii_folds() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().display();
    let table = |name: &str| destination(&format!("uc://main.traces.{name}?root={root}"));
    assert_eq!(table("Kraft").unwrap(), table("kraft").unwrap());
    for name in [
        "\u{212a}raft",
        "\u{130}",
        "\u{131}x",
        "\u{ff4b}raft",
        "stra\u{df}e",
        "k\u{301}",
    ] {
        let error = table(name).unwrap_err().to_string();
        assert!(error.contains("is not a name: U+"), "{error}");
        assert!(error.contains("letters A to Z"), "{error}");
        // In a path too, where case is kept.
        assert!(destination(&format!("uc:main.traces.{name}?root={root}")).is_err());
    }
    for host in ["\u{212a}elvin", "\u{ff41}.example", "b\u{fc}cher.example"] {
        for uri in [
            format!("http://{host}?experiment_name=x"),
            format!("otlp+http://{host}"),
        ] {
            let error = destination(&uri).unwrap_err().to_string();
            assert!(error.contains("xn--"), "{error}");
        }
    }
}

#[test]
fn two_names_never_give_one_place() {
    let dir = TempDir::new().unwrap();
    let all = templates(&dir);
    let config = ProptestConfig {
        failure_persistence: None,
        cases: 200,
        ..ProptestConfig::default()
    };
    let name = || {
        prop_oneof![
            "[a-cA-C.-]{1,3}",
            "[a-c]{1,2}[ \u{301}\u{212a}\u{130}\u{df}K.]{0,2}",
            "[ -~]{0,8}",
            any::<String>(),
        ]
    };
    proptest!(config, |(which in 0..all.len(), names in proptest::collection::vec(name(), 2..30))| {
        let (template, text) = &all[which];
        let mut places: HashMap<String, String> = HashMap::new();
        for name in names {
            let Ok(destination) = to(template, &name) else { continue };
            let place = match text.contains("m.db?experiment_name") || text.starts_with("memory") {
                true => destination.to_string(),
                false => destination.to_string().to_lowercase(),
            };
            if let Some(other) = places.insert(place, name.clone()) {
                prop_assert_eq!(other, name, "one place of {}", text);
            }
        }
    });
}
