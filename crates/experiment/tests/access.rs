//! Who may read what is created here.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::*;
use tempfile::TempDir;
use trace_destination_core::{TraceLocation, TraceSink};
use trace_destination_experiment::{Access, ExperimentLocation};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Modes of the file, its log and the log's index while it is written.
fn modes(location: &ExperimentLocation) -> [u32; 3] {
    run(async {
        let sink = location.open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        let path = location.path();
        let modes = [
            mode(path),
            mode(&beside(path, "-wal")),
            mode(&beside(path, "-shm")),
        ];
        sink.close().await.unwrap();
        modes
    })
}

#[test]
fn what_is_created_is_for_the_owner_only() {
    let dir = TempDir::new().unwrap();
    set_mode(dir.path(), 0o755);
    let path = dir.path().join("one/x.db");
    assert_eq!(modes(&at(&path, "a")), [0o600; 3]);
    assert_eq!(mode(&dir.path().join("one")), 0o700);
    assert_eq!(mode(dir.path()), 0o755, "it was there already");
    // A file of MLflow's or an empty one keeps its mode, and so does what is made beside it.
    for (name, empty) in [("made.db", false), ("empty.db", true)] {
        let path = dir.path().join(name);
        match empty {
            true => drop(fs::File::create(&path).unwrap()),
            false => made_by_mlflow(&path, HEAD)
                .pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
                .unwrap(),
        }
        for of_file in [0o640, 0o664] {
            set_mode(&path, of_file);
            assert_eq!(modes(&at(&path, "a")), [of_file; 3], "{name}");
        }
    }
}

#[test]
#[ignore = "the part of another process"]
fn program() {
    let path = PathBuf::from(std::env::var("TEST_ACCESS_FILE").unwrap());
    let location = uri(&format!(
        "sqlite:///{}?experiment_name=a&access=umask",
        path.display()
    ));
    println!(
        "modes {:?}",
        modes(&location.unwrap()).map(|m| format!("{m:o}"))
    );
}

#[test]
fn access_for_others_is_what_the_umask_leaves() {
    let dir = TempDir::new().unwrap();
    for (umask, of_file, of_folder) in [
        ("007", "660", 0o770),
        ("022", "644", 0o755),
        ("077", "600", 0o700),
    ] {
        let path = dir.path().join(umask).join("x.db");
        let program = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", "umask $0 && exec \"$@\"", umask])
            .arg(program)
            .args(["--exact", "program", "--ignored", "--nocapture"])
            .env("TEST_ACCESS_FILE", &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = format!("modes {:?}", [of_file; 3]);
        assert!(text.contains(&expected), "{umask}: {text}");
        assert_eq!(mode(path.parent().unwrap()), of_folder);
    }
}

#[test]
fn access_is_part_of_the_uri_where_it_is_not_the_default() {
    let location = |access| {
        ExperimentLocation::builder()
            .with_path("/x.db")
            .with_experiment_name("a")
            .with_access(access)
            .build()
            .unwrap()
            .to_string()
    };
    assert_eq!(location(Access::Owner), "sqlite:////x.db?experiment_name=a");
    assert_eq!(
        location(Access::Umask),
        "sqlite:////x.db?access=umask&experiment_name=a"
    );
    let error = uri("sqlite:////x.db?experiment_name=a&access=0644").unwrap_err();
    assert!(
        error.to_string().contains("write owner or umask"),
        "{error}"
    );
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_leads_to_it() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().canonicalize().unwrap();
    symlink("real/x.db", root.join("link.db")).unwrap();
    symlink("link.db", root.join("far.db")).unwrap();
    let location = at(&root.join("far.db"), "a");
    assert_eq!(location.path(), root.join("real/x.db"));
    assert_eq!(modes(&location)[0], 0o600);
    symlink("loop.db", root.join("loop.db")).unwrap();
    let error = uri(&format!(
        "sqlite:///{}/loop.db?experiment_name=a",
        root.display()
    ));
    assert!(error.is_err());
}

/// Whoever is first makes the file; the other neither fails nor changes its mode.
#[test]
fn many_that_create_the_same_file_at_once() {
    for _ in 0..10 {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("new/x.db");
        run(async {
            let opens: Vec<_> = (0..40)
                .map(|n| {
                    let location = at(&path, &format!("e{}", n % 7));
                    tokio::spawn(async move {
                        let sink: Arc<dyn TraceSink> = location.open().await.unwrap().into();
                        persist(&*sink, &batch(conversation(n + 1))).await;
                    })
                })
                .collect();
            for open in opens {
                open.await.unwrap();
            }
        });
        assert_eq!(mode(&path), 0o600);
        assert_eq!(count(&path, "experiments"), 7);
        assert_eq!(count(&path, "spans"), 80);
        assert_sound(&path);
    }
}

#[test]
fn a_folder_that_disappears_is_made_again() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("gone");
    let path = folder.join("x.db");
    run(async {
        let sink = at(&path, "a").open().await.unwrap();
        sink.write(&batch(conversation(1))).await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
        persist(&*sink, &batch(conversation(2))).await;
        assert_eq!(texts(&path, "SELECT DISTINCT trace_id FROM spans").len(), 1);
        sink.close().await.unwrap();
    });
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    assert_sound(&path);
}
