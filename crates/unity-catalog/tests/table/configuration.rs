//! From text and environment to a place.

use std::collections::BTreeMap;
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, LocationUri, TraceLocation as _};
use trace_destination_unity_catalog::{CatalogServer, StorageOptions, UnityCatalogLocation};

fn build(
    uri: &str,
    env: &[(&str, &str)],
) -> Result<UnityCatalogLocation, trace_destination_core::Error> {
    let uri: LocationUri = uri.parse()?;
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    UnityCatalogLocation::builder()
        .with_uri(&uri)
        .with_env(&env)
        .build()
}

#[test]
fn uris_are_canonical_and_always_name_their_catalog() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let root = root.display();
    let plain = build(&format!("uc://main.traces.shop?root={root}"), &[]).unwrap();
    assert_eq!(
        plain.to_string(),
        format!("uc://main.traces.shop?root={root}")
    );
    assert_eq!(plain.table_name(), "main.traces.shop_otel_spans");
    for same in [
        format!("uc:main.traces.shop?root={root}"),
        format!("UC://Main.Traces.Shop?root={root}/x/.."),
        format!("uc://main.traces.shop?root=file://{root}"),
        format!("uc://main.traces.shop?root={root}&create=true"),
    ] {
        assert_eq!(build(&same, &[]).unwrap().uri(), plain.uri(), "{same}");
    }
    let again: LocationUri = plain.to_string().parse().unwrap();
    assert_eq!(
        UnityCatalogLocation::from_uri(&again).unwrap().uri(),
        plain.uri()
    );

    let by_schema = build(&format!("uc://main.traces?root={root}"), &[]).unwrap();
    assert_eq!(
        by_schema.table_name(),
        "main.traces.mlflow_experiment_trace_otel_spans"
    );
    // Where case matters, it is kept, and it is another place.
    let upper = build(&format!("uc:Main.traces.shop?root={root}"), &[]).unwrap();
    assert_eq!(upper.table_name(), "Main.traces.shop_otel_spans");
    assert_ne!(upper.uri(), plain.uri());
    let again: LocationUri = upper.to_string().parse().unwrap();
    assert_eq!(
        UnityCatalogLocation::from_uri(&again).unwrap().uri(),
        upper.uri()
    );
    // The same name in two catalogs is two places.
    let served = build("uc://main.traces.shop?server=http://127.0.0.1:8080/", &[]).unwrap();
    assert_eq!(
        served.to_string(),
        "uc://main.traces.shop?server=http://127.0.0.1:8080"
    );
}

#[test]
fn the_environment_says_what_the_uri_does_not() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap().display().to_string();
    let bare = "uc://main.traces.shop";
    let from_env = build(bare, &[("UNITY_CATALOG_ROOT", &root)]).unwrap();
    assert_eq!(from_env.to_string(), format!("{bare}?root={root}"));
    let server = [("UNITY_CATALOG_URI", "http://uc.example:8080")];
    assert_eq!(
        build(bare, &server).unwrap().to_string(),
        format!("{bare}?server=http://uc.example:8080")
    );
    // A root in the URI wins over a server in the environment.
    let rooted = format!("{bare}?root={root}");
    assert_eq!(build(&rooted, &server).unwrap().to_string(), rooted);
    let nothing = build(bare, &[]).unwrap().to_string();
    assert!(nothing.ends_with("/lakehouse"), "{nothing}");
    let both = [("UNITY_CATALOG_ROOT", root.as_str()), server[0]];
    let error = build(bare, &both).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("UNITY_CATALOG_ROOT"), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused_and_shows_no_secret() {
    for (uri, said) in [
        ("uc://main", "1 parts"),
        ("uc://a.b.c.d", "4 parts"),
        ("uc://main..shop", "is not a name"),
        ("uc://", "does not name a table"),
        ("uc://main.traces/shop", "does not name a table"),
        ("uc://main.traces?root=", "root"),
        ("uc://main.traces?colour=red", "colour"),
        ("uc://main.traces?create=perhaps", "create"),
        ("uc://main.traces?root=/tmp/x&server=http://h", "only one"),
        (
            "uc://main.traces?root=s3://id:secret@bucket/x",
            "user information",
        ),
        (
            "uc://main.traces?server=http://user:secret@host",
            "user information",
        ),
        ("uc://main.traces?server=ftp://host", "web address"),
    ] {
        let error = build(uri, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{uri}: {error}");
        assert!(error.to_string().contains(said), "{uri}: {error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let secretive = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_server(
            CatalogServer::new("http://host")
                .unwrap()
                .with_token("secret"),
        )
        .build()
        .unwrap();
    assert!(!format!("{secretive:?} {secretive}").contains("secret"));
}

#[test]
fn one_place_has_one_configuration() {
    let dir = TempDir::new().unwrap();
    let with = |storage: StorageOptions| {
        UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root(dir.path().display().to_string())
            .with_storage(storage)
            .build()
    };
    let other = || StorageOptions::new().with_option("aws_secret_access_key", "hunter2");
    let first = with(StorageOptions::new()).unwrap();
    let second = with(StorageOptions::new()).unwrap();
    assert_eq!(first.uri(), second.uri());
    let error = with(other()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.location().is_some() && error.mend_hint().is_some());
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    drop(first);
    assert!(with(other()).is_err(), "it is still in use");
    drop(second);
    let third = with(other()).unwrap();
    assert!(with(StorageOptions::new()).is_err(), "now the other is");
    drop(third);
    // Names that come and go leave nothing that could be in the way.
    for n in 0..1_000 {
        let location = UnityCatalogLocation::builder()
            .with_name(format!("main.traces.t{n}"))
            .with_root(dir.path().display().to_string())
            .build();
        assert!(location.is_ok());
    }
    assert!(with(StorageOptions::new()).is_ok());
}

/// Neither sent nor a panic: nobody listens at the address, and nobody is asked.
#[tokio::test]
async fn a_token_that_cannot_be_sent_is_an_error_at_once() {
    for token in ["hunter2\n", "hunt\r\ner2", "hunter2\0"] {
        let server = CatalogServer::new("http://127.0.0.1:9").unwrap();
        let location = UnityCatalogLocation::builder()
            .with_name("main.traces.token")
            .with_server(server.with_token(token))
            .build();
        let opened = match location {
            Ok(location) => location.open().await.map(drop),
            Err(error) => Err(error),
        };
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.mend_hint().is_some(), "{error}");
        assert!(!format!("{error} {error:?}").contains("er2"), "{error:?}");
    }
}
