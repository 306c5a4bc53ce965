//! Local files: the switch for those who want speed, and what a process that died leaves.

use crate::help::*;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use trace_destination_core::{ErrorKind, LocationUri, TraceLocation as _};
use trace_destination_unity_catalog::{StorageOptions, UnityCatalogLocation};

fn build(uri: &str) -> Result<UnityCatalogLocation, trace_destination_core::Error> {
    let uri: LocationUri = uri.parse()?;
    let env = BTreeMap::<String, String>::new();
    UnityCatalogLocation::builder()
        .with_uri(&uri)
        .with_env(&env)
        .build()
}

#[tokio::test]
async fn durability_is_part_of_the_place() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let root = root.display();
    let plain = build(&format!("uc://main.traces.shop?root={root}")).unwrap();
    let same = build(&format!("uc://main.traces.shop?root={root}&durable=true")).unwrap();
    assert_eq!(plain.uri(), same.uri());
    let quick = build(&format!("uc://main.traces.shop?durable=false&root={root}")).unwrap();
    assert_ne!(plain.uri(), quick.uri());
    let again = build(&quick.to_string()).unwrap();
    assert_eq!(quick.uri(), again.uri());
    let by_code = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_root(root.to_string())
        .with_durable(false)
        .build()
        .unwrap();
    assert_eq!(quick.uri(), by_code.uri());
    let by_options = UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_root(root.to_string())
        .with_storage(StorageOptions::new().with_durable(false))
        .build()
        .unwrap();
    assert_eq!(quick.uri(), by_options.uri());
    let error = build(&format!("uc://main.traces.shop?root={root}&durable=no")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.mend_hint().is_some());
    open(&quick).await.write(&numbered(1, 0)).await.unwrap();
    open(&plain).await.write(&numbered(2, 0)).await.unwrap();
    assert_eq!(stored(&shop(dir.path())).await, expected(&[1, 2], 1));
}

#[tokio::test]
async fn files_that_were_never_finished_are_orphans() {
    let dir = TempDir::new().unwrap();
    let folder = shop(dir.path());
    let location = location(dir.path());
    open(&location).await.write(&numbered(1, 0)).await.unwrap();
    let left = [
        "_delta_log/00000000000000000002.json#1",
        "_delta_log/_last_checkpoint#12",
        "spans-x.zstd.parquet#1",
    ];
    let others = ["notes#1", "spans.parquet#", "spans.parquet#1a", "#1"];
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for name in left.iter().chain(&others) {
        let path = folder.join(name);
        std::fs::write(&path, "x").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(old).unwrap();
    }
    let young = "_delta_log/00000000000000000003.json#1";
    std::fs::write(folder.join(young), "x").unwrap();
    // A folder and a link of such a name are left alone.
    std::fs::create_dir(folder.join("y.parquet#1")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("z.parquet#1")).unwrap();
    let care = location.maintenance().await.unwrap();
    assert_eq!(care.orphans(None).await.unwrap(), [] as [&str; 0]);
    let hour = Some(Duration::from_secs(3600));
    let mut found = care.orphans(hour).await.unwrap();
    found.retain(|name| name.contains('#') && !others.contains(&name.as_str()));
    assert_eq!(found, left);
    assert!(left.iter().all(|name| folder.join(name).exists()));
    care.remove_orphans(hour).await.unwrap();
    assert!(left.iter().all(|name| !folder.join(name).exists()));
    assert!(folder.join(young).exists());
    assert!(folder.join("z.parquet#1").is_symlink());
    assert_eq!(stored(&folder).await, expected(&[1], 1));
}

#[tokio::test]
async fn roots_that_are_mistyped_make_no_folder() {
    let here = std::env::current_dir().unwrap();
    let before: Vec<_> = names(&here);
    for root in [
        "file:/tmp/x",
        "file:x",
        "s3:/bucket",
        "s3:bucket/x",
        "s3:///x",
        "s3://minio:9000/bucket",
        "~/lake",
        "$HOME/lake",
        " /tmp/x",
        "/tmp/x ",
        "\"/tmp/x\"",
        "dbfs:/x",
        "/tmp/x\ny",
    ] {
        let built = UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root(root)
            .build();
        let error = built.map(|l| l.to_string()).expect_err(root);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{root}: {error}");
        assert!(error.mend_hint().is_some(), "{root}: {error}");
    }
    assert_eq!(names(&here), before);
}

fn names(folder: &std::path::Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}
