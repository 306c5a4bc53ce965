//! Files of credentials as editors leave them, and what is no file of credentials at all.

use std::collections::BTreeMap;
use std::path::Path;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_server::ServerLocation;

fn build(file: &Path) -> Result<ServerLocation, Error> {
    let uri = "databricks://p?table=c.s.t".parse()?;
    let env = BTreeMap::from([(
        "DATABRICKS_CONFIG_FILE".to_owned(),
        file.display().to_string(),
    )]);
    ServerLocation::builder()
        .with_uri(&uri)
        .with_env(&env)
        .build()
}

fn written(content: &[u8]) -> Result<ServerLocation, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cfg");
    std::fs::write(&file, content).expect("a file");
    build(&file)
}

/// Editors of Windows begin a file with a byte order mark, and end lines with two characters.
#[test]
fn a_file_is_read_as_editors_save_it() {
    let plain = "[p]\nhost = https://h.example\ntoken = hunter2\n";
    for text in [
        plain.to_owned(),
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        format!("\u{feff}{}", plain.replace('\n', "\r\n")),
    ] {
        if let Err(error) = written(text.as_bytes()) {
            panic!("{text:?}: {error}");
        }
    }
}

#[test]
fn what_is_no_file_of_credentials_is_told_and_not_shown() {
    // What PowerShell writes unless told otherwise is UTF-16.
    let utf16: Vec<u8> = "\u{feff}[p]\nhost=h\ntoken=hunter2"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut latin = b"[p]\nhost=h\ntoken=hunter2-".to_vec();
    latin.push(0xfc);
    let long = "x".repeat(2 << 20).into_bytes();
    for (content, cause, mend) in [
        (utf16, "not UTF-8", "save it"),
        (latin, "not UTF-8", "save it"),
        (long, "no file of at most", "another"),
    ] {
        let error = written(&content).expect_err("it is refused");
        check(&error, cause, mend);
    }
}

/// A device without an end is not read until memory is out, and a pipe is not waited for.
#[cfg(unix)]
#[test]
fn devices_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for place in [Path::new("/dev/zero"), folder.path()] {
        let error = build(place).expect_err("it is refused");
        check(&error, "no file of at most", "another");
    }
}

fn check(error: &Error, cause: &str, mend: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains(cause), "{error}");
    let hint = error.mend_hint().unwrap_or_default();
    assert!(hint.contains(mend), "{hint}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}
