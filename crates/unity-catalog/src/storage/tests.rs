use super::*;
use object_store::path::Path as StorePath;
use object_store::{ObjectStoreExt as _, PutPayload};
use std::collections::BTreeMap;

fn url(text: &str) -> Url {
    parse_url(text).unwrap()
}

#[test]
fn urls_of_stores() {
    for (given, expected) in [
        ("/data/lake/", "file:///data/lake"),
        ("file:///data/a b/", "file:///data/a%20b"),
        ("s3://Bucket/x/y//", "s3://Bucket/x/y"),
        ("s3://bucket", "s3://bucket"),
        (
            "abfss://c@account.dfs.core.windows.net/x",
            "abfss://c@account.dfs.core.windows.net/x",
        ),
        (" gs://bucket/x ", "gs://bucket/x"),
    ] {
        let parsed = url(given);
        assert_eq!(parsed.as_str(), expected);
        assert_eq!(url(parsed.as_str()), parsed, "not a fixed point");
    }
    for wrong in [
        "",
        "data/lake",
        "http://h/x",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?token=secret",
        "s3://bucket/x#secret",
        "file://host/x",
    ] {
        let error = parse_url(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{wrong}");
        assert!(error.mend_hint().is_some());
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}

#[test]
fn one_place_however_spelled() {
    let same = |a: &str, b: &str| same_place(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
    assert!(same("file:/a/b", "file:///a/b/"));
    assert!(same("s3a://b/x//y", "s3://b/x/y"));
    assert!(!same("s3://b/x", "s3://b/X"));
    assert!(!same("s3://b/x", "s3://c/x"));
    assert!(!same("s3://b/x", "gs://b/x"));
    assert!(!same("abfss://a@h.net/x", "abfss://b@h.net/x"));
}

#[tokio::test]
async fn local_files_are_rooted_at_their_url_and_made_when_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("not yet/~t#1");
    let at = Url::from_file_path(&place).unwrap();
    let store = StorageOptions::new().of_own_root().open(&at).unwrap();
    assert!(!place.exists(), "opening makes nothing");
    let name = StorePath::from("_delta_log/0.json");
    store.put(&name, PutPayload::from("{}")).await.unwrap();
    let text = std::fs::read_to_string(place.join("_delta_log/0.json")).unwrap();
    assert_eq!(text, "{}");
}

#[test]
fn the_environment_under_its_usual_names() {
    let env = |vars: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    };
    let options = StorageOptions::new()
        .with_option("AWS_REGION", "code")
        .or_env(&env(&[
            ("AWS_REGION", "env"),
            ("AWS_ACCESS_KEY_ID", "hunter2-id"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("UNITY_CATALOG_S3_SESSION_TOKEN", "drop"),
            ("PATH", "/bin"),
        ]))
        .unwrap();
    let expected = StorageOptions::new()
        .with_option("aws_region", "code")
        .with_option("aws_access_key_id", "hunter2-id")
        .with_option("aws_secret_access_key", "hunter2")
        .with_session_token(SessionToken::Drop);
    assert_eq!(options, expected);
    assert!(!format!("{options:?}").contains("hunter2"));
    let error = StorageOptions::from_env(&env(&[(UNITY_CATALOG_S3_SESSION_TOKEN, "x")]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains(UNITY_CATALOG_S3_SESSION_TOKEN), "{error}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    for (options, at, kind, said) in [
        (
            StorageOptions::new(),
            "s3:///x",
            ErrorKind::InvalidConfig,
            "bucket",
        ),
        (
            StorageOptions::new(),
            "ftp://h/x",
            ErrorKind::Unsupported,
            "ftp:",
        ),
    ] {
        let error = options.open(&Url::parse(at).unwrap()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.mend_hint().is_some(), "{error}");
    }
}

#[test]
fn places_that_lead_elsewhere_are_not_understood() {
    for text in [
        "/lake/../etc",
        "file:///lake/%2e%2e/etc",
        "file:///lake/.%2E/etc",
        "s3://bucket/lake/../other",
        "s3://bucket/lake%2f..%2fother",
        "s3://bucket/./lake",
        "file:///lake/a%00b",
        "s3://bucket/a\nb",
        "http://127.0.0.1/lake",
        "ftp://bucket/lake",
        "lake",
    ] {
        let error = parse_url(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
    }
    for text in [
        "/lake",
        "file:///lake/a..b",
        "s3://bucket/la%20ke",
        "gs://b",
    ] {
        assert!(parse_url(text).is_ok(), "{text}");
    }
}

#[test]
fn local_places_are_where_the_configuration_allows_them() {
    let opens = |options: &StorageOptions, place: &str| {
        options
            .open(&parse_url(place).unwrap())
            .map(|_| ())
            .map_err(|e| e.kind())
    };
    let root = parse_url("/lake").unwrap();
    let options = StorageOptions::new();
    let refused = Err(ErrorKind::PermissionDenied);
    assert_eq!(opens(&options.of_server(None), "/lake/t"), refused);
    assert_eq!(opens(&options.of_server(Some(&root)), "/lake/t"), Ok(()));
    assert_eq!(
        opens(&options.of_server(Some(&root)), "/lakeside/t"),
        refused
    );
    assert_eq!(opens(&options.of_server(Some(&root)), "/t"), refused);
    let allowed = options.clone().with_file_locations(true);
    assert_eq!(opens(&allowed.of_server(None), "/t"), Ok(()));
    assert_eq!(opens(&options.of_own_root(), "/t"), Ok(()));
    let env = BTreeMap::from([(UNITY_CATALOG_FILE_LOCATIONS.to_owned(), "true".to_owned())]);
    let allowed = StorageOptions::from_env(&env).unwrap();
    assert_eq!(opens(&allowed.of_server(None), "/t"), Ok(()));
    let env = BTreeMap::from([(UNITY_CATALOG_FILE_LOCATIONS.to_owned(), "yes".to_owned())]);
    assert!(StorageOptions::from_env(&env).is_err());
}
