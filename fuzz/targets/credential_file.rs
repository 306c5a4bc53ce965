#![no_main]
//! `~/.mlflow/credentials` and `~/.databrickscfg`: what is in them is sent as it is written or refused,
//! never shown, and line ends and the case of keys make no difference.
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;
use trace_destination_core::{Error, TraceLocation as _};
use trace_destination_http::fuzzing::{Reply, serve};
use trace_destination_server::ServerLocation;

mod dialogue;
use dialogue::{RUNTIME, error_text, error_text::SECRET};

static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(home.path().join(".mlflow")).expect("a folder");
    home
});

/// What is sent with the first request, and where to.
fn sent(uri: &str, bytes: &[u8]) -> Result<String, Error> {
    for name in [".mlflow/credentials", ".databrickscfg"] {
        std::fs::write(HOME.path().join(name), bytes).expect("a file");
    }
    let home = HOME.path().display().to_string();
    let env: BTreeMap<String, String> = [
        ("HOME", home.as_str()),
        ("USERPROFILE", home.as_str()),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let location = ServerLocation::builder()
        .with_uri(&uri.parse()?)
        .with_env(&env)
        .build()?;
    let shown = format!("{location:?} {location}");
    let seen = Rc::new(RefCell::new(String::new()));
    let record = seen.clone();
    serve(move |url, headers| {
        let mut seen = record.borrow_mut();
        if seen.is_empty() {
            *seen = format!(
                "{url} {:?}",
                headers.get("authorization").map(|v| v.as_bytes())
            );
        }
        Reply {
            status: 401,
            ..Reply::default()
        }
    });
    dialogue::hold(&location, &[]);
    Ok(format!("{shown} {}", seen.borrow()))
}

fuzz_target!(|text: &str| {
    // The secret may be shown only where it stands for a host or a profile.
    let is_value = |line: &str| {
        let key = line
            .split_once('=')
            .map(|(key, _)| key.trim().to_ascii_lowercase());
        let secret = ["mlflow_tracking_password", "token", "client_secret"];
        key.is_some_and(|key| secret.contains(&key.as_str())) && !line.trim().starts_with('[')
    };
    let hidden = text
        .lines()
        .filter(|line| line.contains(SECRET))
        .all(is_value);
    let secrets: &[&str] = if hidden { &[SECRET] } else { &[] };
    let windows = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let _guard = RUNTIME.enter();
    for uri in [
        "http://127.0.0.1:9?experiment_name=n",
        "databricks://profile?table=a.b.c",
    ] {
        let plain = sent(uri, text.as_bytes());
        let other = sent(uri, windows.as_bytes());
        match (&plain, &other) {
            (Ok(plain), Ok(other)) => assert_eq!(plain, other),
            (Err(plain), Err(other)) => assert_eq!(plain.to_string(), other.to_string()),
            _ => panic!("{plain:?} {other:?}"),
        }
        if let Err(error) = plain {
            error_text::check_own(&error, secrets);
        }
    }
});
