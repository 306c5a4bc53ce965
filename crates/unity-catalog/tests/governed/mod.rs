//! The backend with a Unity Catalog server as the conformance suite sees it. Tables are local files,
//! so that they can be read back and broken as those of the local catalog are.

use crate::catalog_server::UnityServer;
use crate::harness::{LakeHarness, Writer};
use async_trait::async_trait;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, RealFault, Scale, Stored, StoredSpan, Untouched,
};
use trace_destination_core::{ErrorKind, LocationUri, Registry, Template, TraceLocation};
use trace_destination_unity_catalog::{
    MissingTable, StorageOptions, UnityCatalogLocation, UnityCatalogLocationBuilder,
};

/// Brings tables of the stand-in server to the suite.
#[derive(Debug)]
pub(crate) struct GovernedHarness {
    server: UnityServer,
    folder: TempDir,
    /// What it does with tables in a folder is done with these as well.
    lake: LakeHarness,
    next: AtomicU64,
}

/// A location of a server on this machine, whose tables are in its folder, and left to the system as
/// those of [`LakeHarness`].
fn builder() -> UnityCatalogLocationBuilder {
    let storage = StorageOptions::new()
        .with_file_locations(true)
        .with_durable(false);
    UnityCatalogLocation::builder().with_storage(storage)
}

impl GovernedHarness {
    pub(crate) fn new(writer: Writer) -> std::io::Result<Self> {
        let folder = TempDir::with_prefix("governed-")?;
        Ok(Self {
            server: UnityServer::with_root(folder.path()),
            folder,
            lake: LakeHarness::new(writer)?,
            next: AtomicU64::new(0),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn uri(&self, name: &str, rest: &str) -> Result<LocationUri, Failure> {
        Ok(format!("uc://{name}?server={}{rest}", self.server.url()).parse()?)
    }

    fn place(&self, name: &str) -> PathBuf {
        let name = name.replace('.', "/");
        self.folder.path().join(format!("{name}_otel_spans"))
    }

    /// The same table, for those who look at its folder.
    fn twin(&self, location: &dyn TraceLocation) -> Result<UnityCatalogLocation, Failure> {
        let name = location.uri().authority().unwrap_or_default();
        Ok(UnityCatalogLocation::builder()
            .with_name(name)
            .with_root(self.folder.path().display().to_string())
            .build()?)
    }
}

#[async_trait]
impl Harness for GovernedHarness {
    fn name(&self) -> &str {
        "unity-catalog-server"
    }

    /// Opening a table takes six requests and four files, in a build that is not optimised.
    fn scale(&self) -> Scale {
        Scale::small(6, 20, 8)
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let name = format!("main.traces.{}-{}", hint.to_lowercase(), self.number());
        let location = builder().with_uri(&self.uri(&name, "")?);
        Ok(Arc::new(location.build()?))
    }

    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        let alias = builder()
            .with_uri(location.uri())
            .with_missing(MissingTable::Fail)
            .build()?;
        Ok(Arc::new(alias))
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        self.lake.read_back(&self.twin(location)?).await
    }

    fn declares(&self) -> Declares {
        self.lake.declares()
    }

    async fn template(&self) -> Result<Template, Failure> {
        // Schemas are made by whoever runs the server.
        let (n, url) = (self.number(), self.server.url());
        let text = format!("uc://main.traces.names-{n}-{{tenant}}?server={url}");
        let registry = Registry::new().with_scheme("uc", |uri| {
            let location = builder().with_uri(uri).build()?;
            Ok(Arc::new(location) as Arc<dyn TraceLocation>)
        });
        let registry = registry.with_holes("uc", UnityCatalogLocation::holes());
        Ok(registry.template(&text)?)
    }

    fn keeps(&self, stored: StoredSpan) -> StoredSpan {
        self.lake.keeps(stored)
    }

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        self.lake.inflict(&self.twin(location)?, fault).await
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let mut all = Vec::new();
        let mut add = |what: &str, uri: LocationUri, expected, retried, place: Option<PathBuf>| {
            let location = builder().with_uri(&uri).build();
            all.push(Misconfigured {
                what: what.to_owned(),
                location: location.map(|l| Arc::new(l) as _),
                expected,
                retried,
                untouched: match place {
                    None => Untouched::nowhere(),
                    Some(place) => Untouched::new(move || match place.exists() {
                        true => Err(Failure::new("a table was made")),
                        false => Ok(()),
                    }),
                },
            });
        };
        for (what, name) in [
            ("a catalog that does not exist", "elsewhere.traces.a"),
            ("a schema that does not exist", "main.elsewhere.a"),
        ] {
            let uri = self.uri(name, "")?;
            add(
                what,
                uri,
                ErrorKind::NotFound,
                false,
                Some(self.place(name)),
            );
        }
        let name = format!("main.traces.absent-{}", self.number());
        let uri = self.uri(&name, "&create=false")?;
        let what = "an absent table that must not be made";
        add(
            what,
            uri,
            ErrorKind::NotFound,
            false,
            Some(self.place(&name)),
        );
        for (what, kind, format) in [
            ("a view", "VIEW", "DELTA"),
            ("a managed table", "MANAGED", "DELTA"),
            ("a table of Parquet files", "EXTERNAL", "PARQUET"),
        ] {
            let name = format!("main.traces.other-{}", self.number());
            let place = self.place(&name);
            let url = match kind {
                "VIEW" => String::new(),
                _ => format!("file://{}", place.display()),
            };
            let table = format!("{name}_otel_spans");
            self.server.state().put(&table, &url, kind, format);
            let uri = self.uri(&name, "")?;
            add(what, uri, ErrorKind::Unsupported, false, Some(place));
        }
        let strict = UnityServer::with_root(self.folder.path());
        strict.state().tokens.insert("right".into());
        let name = format!("main.traces.token-{}", self.number());
        let uri = format!("uc://{name}?server={}", strict.url()).parse()?;
        let what = "a server that wants a token";
        add(
            what,
            uri,
            ErrorKind::Unauthenticated,
            false,
            Some(self.place(&name)),
        );
        let rootless = UnityServer::start();
        let uri = format!("uc://main.traces.a?server={}", rootless.url()).parse()?;
        let what = "a catalog without a storage root";
        add(what, uri, ErrorKind::InvalidConfig, false, None);
        // They run as long as the harness's own.
        std::mem::forget((strict, rootless));
        let uri = self.uri("main.traces.a", "/nowhere")?;
        let what = "an address where no catalog is";
        add(what, uri, ErrorKind::NotFound, false, None);
        let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let uri = format!("uc://main.traces.a?server=http://{closed}").parse()?;
        add(
            "a port nobody listens on",
            uri,
            ErrorKind::Unavailable,
            true,
            None,
        );
        let uri = format!(
            "uc://main.traces.a?server=https://{}",
            &self.server.url()[7..]
        );
        let what = "a port that does not speak TLS";
        add(what, uri.parse()?, ErrorKind::InvalidConfig, false, None);
        Ok(all)
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        self.lake.writer(location)
    }
}
