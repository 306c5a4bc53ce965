//! The backend as the conformance suite sees it: fresh tables in a folder that is their catalog,
//! read back by code that is not the sink's.

use crate::lake;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, RealFault, Scale, Stored, StoredSpan, Untouched,
};
use trace_destination_core::{
    AnyValue, Attribute, ErrorKind, LocationUri, Registry, Template, TraceLocation,
};
use trace_destination_unity_catalog::{MissingTable, UnityCatalogLocation};

/// Makes the command that runs `trace_destination_conformance::writer::run` on a location.
pub(crate) type Writer = fn(&LocationUri) -> Command;

/// Brings [`UnityCatalogLocation`] with the local catalog to the suite. Its tables vanish with it.
#[derive(Debug)]
pub(crate) struct LakeHarness {
    dir: TempDir,
    next: AtomicU64,
    writer: Writer,
}

impl LakeHarness {
    /// A harness with a folder of its own.
    pub(crate) fn new(writer: Writer) -> std::io::Result<Self> {
        Ok(Self {
            dir: TempDir::with_prefix("conformance-")?,
            next: AtomicU64::new(0),
            writer,
        })
    }

    fn fresh_name(&self, hint: &str) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("main.traces.{}-{n}", hint.to_lowercase())
    }

    /// Left to the system: the suite makes thousands of tables, some cases are about how much drains
    /// in a while, and a disk that others use takes its time. The order of flushing has tests of its
    /// own (`storage/local/tests.rs`), and `tests/table.rs` flushes.
    fn location(&self, name: &str) -> Result<UnityCatalogLocation, Failure> {
        Ok(UnityCatalogLocation::builder()
            .with_name(name)
            .with_root(self.dir.path().display().to_string())
            .with_durable(false)
            .build()?)
    }

    fn folder_of(&self, name: &str) -> PathBuf {
        let mut folder = self.dir.path().to_owned();
        folder.extend(name.split('.'));
        folder.set_file_name(format!(
            "{}_otel_spans",
            name.rsplit('.').next().unwrap_or_default()
        ));
        folder
    }
}

/// The scheme and where names may stand in it.
pub(crate) fn registry() -> Registry {
    Registry::new()
        .with_scheme("uc", |uri| {
            let location = UnityCatalogLocation::builder().with_uri(uri).build()?;
            Ok(Arc::new(location) as Arc<dyn TraceLocation>)
        })
        .with_holes("uc", UnityCatalogLocation::holes())
}

/// Where the table of a location is: what its documentation says, not what its code does.
fn folder(location: &dyn TraceLocation) -> Result<PathBuf, Failure> {
    let uri = location.uri();
    let root = uri
        .query("root")
        .ok_or_else(|| Failure::new(format!("{location} names no root")))?;
    let name = uri
        .authority()
        .ok_or_else(|| Failure::new(format!("{location} names no table")))?;
    Ok(Path::new(root).join(format!("{}_otel_spans", name.replace('.', "/"))))
}

#[async_trait]
impl Harness for LakeHarness {
    fn name(&self) -> &str {
        "unity-catalog"
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        Ok(Arc::new(self.location(&self.fresh_name(hint))?))
    }

    /// The same table with another URI.
    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        let alias = UnityCatalogLocation::builder()
            .with_uri(location.uri())
            .with_missing(MissingTable::Fail)
            .build()?;
        Ok(Arc::new(alias))
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let folder = folder(location)?;
        let failed = |e| Failure::new(format!("{location}: {e}"));
        let beside = folder
            .display()
            .to_string()
            .replace("_otel_spans", "_otel_annotations");
        let annotations = lake::annotations(Path::new(&beside))
            .await
            .map_err(failed)?;
        let mut updates = lake::values(&annotations);
        for update in &mut updates {
            // They are told as such.
            update.tags.remove("mlflow.traceName");
            update.metadata.remove("mlflow.trace.session");
            update.metadata.remove("mlflow.trace.user");
        }
        Ok(Stored {
            spans: lake::spans(&folder).await.map_err(failed)?,
            updates,
        })
    }

    /// Every batch is a file and a commit on a real disk.
    fn scale(&self) -> Scale {
        Scale::small(6, 20, 8)
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_unavailable()
            .with_broken()
            .with_alias()
            .with_groups()
            .with_trace_values()
            .with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let root = self.dir.path().display();
        Ok(registry().template(&format!("uc://main.names-{n}.{{tenant}}?root={root}"))?)
    }

    /// What is in the columns is what was given, but that VARIANT objects keep neither the order of
    /// their keys nor a key twice.
    fn keeps(&self, mut stored: StoredSpan) -> StoredSpan {
        for bag in [
            &mut stored.span.attributes,
            &mut stored.resource.attributes,
            &mut stored.scope.attributes,
        ] {
            normalise(bag);
        }
        for event in &mut stored.span.events {
            normalise(&mut event.attributes);
        }
        for link in &mut stored.span.links {
            normalise(&mut link.attributes);
        }
        stored
    }

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        let folder = folder(location)?;
        let aside = folder.with_extension("aside");
        match fault {
            // A link that leads to itself: an error of the file system that says nothing about
            // whether it will last.
            RealFault::Unavailable => {
                std::fs::rename(&folder, &aside)?;
                std::os::unix::fs::symlink(&folder, &folder)?;
            }
            RealFault::Broken => {
                std::fs::rename(&folder, &aside)?;
                std::fs::write(&folder, "no table")?;
            }
            RealFault::Heal => {
                std::fs::remove_file(&folder)?;
                std::fs::rename(&aside, &folder)?;
            }
        }
        Ok(())
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let mut all = Vec::new();
        let mut add = |what: &str, text: String, expected, untouched| -> Result<(), Failure> {
            let uri: LocationUri = text.parse()?;
            all.push(Misconfigured {
                what: what.to_owned(),
                location: UnityCatalogLocation::from_uri(&uri).map(|l| Arc::new(l) as _),
                expected,
                retried: false,
                untouched,
            });
            Ok(())
        };
        let uri = |name: &str, rest: &str| {
            format!("uc://{name}?root={}{rest}", self.dir.path().display())
        };

        let one_part = self.fresh_name("a").replace('.', "-");
        add(
            "a table without a schema",
            uri(&one_part, ""),
            ErrorKind::InvalidConfig,
            Untouched::nowhere(),
        )?;
        let name = self.fresh_name("a");
        add(
            "a parameter that is not understood",
            uri(&name, "&colour=red"),
            ErrorKind::InvalidConfig,
            absent(&self.folder_of(&name)),
        )?;
        let name = self.fresh_name("a");
        add(
            "two catalogs",
            uri(&name, "&server=http://127.0.0.1:9"),
            ErrorKind::InvalidConfig,
            absent(&self.folder_of(&name)),
        )?;
        let name = self.fresh_name("absent");
        add(
            "an absent table that must not be made",
            uri(&name, "&create=false"),
            ErrorKind::NotFound,
            absent(&self.folder_of(&name)),
        )?;
        add(
            "a store that is not known",
            "uc://main.traces.a?root=gopher://hole/lake".into(),
            ErrorKind::Unsupported,
            Untouched::nowhere(),
        )?;

        let file = self.dir.path().join("a-file");
        std::fs::write(&file, "a shopping list")?;
        let same = file.clone();
        add(
            "a root that is a file",
            format!("uc://main.traces.a?root={}", file.display()),
            ErrorKind::InvalidConfig,
            Untouched::new(move || match std::fs::read_to_string(&same)?.as_str() {
                "a shopping list" => Ok(()),
                _ => Err(Failure::new("the file was changed")),
            }),
        )?;
        for (what, commit) in [
            ("a table of something else", FOREIGN),
            ("a table that is clustered", CLUSTERED),
        ] {
            let name = self.fresh_name("b");
            let folder = self.folder_of(&name);
            std::fs::create_dir_all(folder.join("_delta_log"))?;
            std::fs::write(folder.join("_delta_log/00000000000000000000.json"), commit)?;
            add(
                what,
                uri(&name, ""),
                ErrorKind::Unsupported,
                only_one_file(&folder),
            )?;
        }
        let name = self.fresh_name("b");
        let folder = self.folder_of(&name);
        std::fs::create_dir_all(folder.join("_delta_log"))?;
        std::fs::write(
            folder.join("_delta_log/00000000000000000000.json"),
            "{\"metaData\":",
        )?;
        add(
            "a log that is damaged",
            uri(&name, ""),
            ErrorKind::Corrupt,
            only_one_file(&folder),
        )?;
        Ok(all)
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        Some((self.writer)(location.uri()))
    }
}

/// The first commit of a table with one column that is not ours.
const FOREIGN: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"7b7a2b0a-1d4e-4a53-9a43-000000000001","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"groceries\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1700000000000}}
"#;
/// The same with a feature that is not ours either.
const CLUSTERED: &str = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":["clustering","domainMetadata"]}}
{"metaData":{"id":"7b7a2b0a-1d4e-4a53-9a43-000000000002","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"groceries\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1700000000000}}
"#;

fn absent(folder: &Path) -> Untouched {
    let folder = folder.to_owned();
    Untouched::new(move || match folder.exists() {
        true => Err(Failure::new("a table was made")),
        false => Ok(()),
    })
}

fn only_one_file(folder: &Path) -> Untouched {
    let folder = folder.to_owned();
    Untouched::new(move || {
        let count = std::fs::read_dir(&folder)?.count()
            + std::fs::read_dir(folder.join("_delta_log"))?.count();
        match count {
            2 => Ok(()),
            _ => Err(Failure::new(format!("there are {count} files and not 2"))),
        }
    })
}

fn normalise(bag: &mut Vec<Attribute>) {
    for attribute in &mut *bag {
        nested(&mut attribute.value);
    }
    let mut seen: Vec<Attribute> = Vec::new();
    for attribute in bag.drain(..) {
        match seen.iter_mut().find(|a| a.key == attribute.key) {
            Some(earlier) => *earlier = attribute,
            None => seen.push(attribute),
        }
    }
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    *bag = seen;
}

fn nested(value: &mut AnyValue) {
    match value {
        AnyValue::Array(items) => items.iter_mut().for_each(nested),
        AnyValue::Map(entries) => normalise(entries),
        _ => {}
    }
}
