//! The catalog that needs no server: a folder, or a place in an object store, in which tables are
//! found by their path, `<root>/<catalog>/<schema>/<table>`.

use super::{Catalog, NewTable, TableEntry};
use crate::error::{BUILD, OPEN, fault};
use crate::name::TableName;
use crate::storage::{Bounded, Limits, StorageOptions, misspelt, wrong_host};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use std::path::{Component, PathBuf};
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind};
use url::Url;

/// A lakehouse that is its own catalog.
#[derive(Debug)]
pub(crate) struct LocalCatalog {
    root: Url,
    options: StorageOptions,
}

impl LocalCatalog {
    /// A catalog at a root that [`root_url`] made.
    pub(crate) fn new(root: Url, options: StorageOptions) -> Self {
        Self {
            root,
            options: options.of_own_root(),
        }
    }
}

#[async_trait]
impl Catalog for LocalCatalog {
    /// A table is there if it has a log.
    async fn get(&self, name: &TableName) -> Result<Option<TableEntry>, Error> {
        let location = self.place(name).await?;
        let store = Bounded::new(self.storage(&location, None).await?, Limits::WRITING);
        let log = Path::from("_delta_log");
        match store.list(Some(&log)).next().await {
            None | Some(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Some(Ok(_)) => Ok(Some(entry(location))),
            Some(Err(e)) => Err(fault(OPEN, "looking for the table", e)),
        }
    }

    /// The log is the registration.
    async fn register(&self, _name: &TableName, table: &NewTable<'_>) -> Result<TableEntry, Error> {
        Ok(entry(table.location.clone()))
    }

    async fn place(&self, name: &TableName) -> Result<Url, Error> {
        let mut place = self.root.clone();
        {
            let mut segments = place.path_segments_mut().map_err(|()| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    OPEN,
                    format!("{} is no folder", self.root),
                )
                .mend("name a folder, or a URL such as s3://bucket/lakehouse")
            })?;
            segments
                .pop_if_empty()
                .extend([&name.catalog, &name.schema, &name.table]);
        }
        Ok(place)
    }

    async fn storage(
        &self,
        location: &Url,
        _table_id: Option<&str>,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        self.options.open(location)
    }
}

fn entry(location: Url) -> TableEntry {
    TableEntry {
        location,
        id: None,
        kind: None,
        columns: Vec::new(),
    }
}

/// The one spelling of a root: a URL, or a folder, made absolute and free of symbolic links.
pub(crate) fn root_url(text: &str) -> Result<Url, Error> {
    let invalid = |cause: String| {
        Error::new(ErrorKind::InvalidConfig, BUILD, cause)
            .mend("name a folder, or a URL such as s3://bucket/lakehouse")
    };
    if let Some((kind, cause, mend)) = misspelt(text) {
        return Err(Error::new(kind, BUILD, format!("the root {cause}")).mend(mend));
    }
    let shown = text.escape_debug();
    // A drive letter is no scheme.
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let path = match scheme {
        None if text.is_empty() => return Err(invalid("the root is empty".into())),
        None => PathBuf::from(text),
        Some(_) => {
            let mut url = Url::parse(text)
                .map_err(|e| invalid(format!("the root `{shown}` is no URL")).caused_by(e))?;
            if !url.username().is_empty() || url.password().is_some() {
                // `abfss://container@account…` names a container there, and no user.
                let azure = matches!(url.scheme(), "abfs" | "abfss" | "wasb" | "wasbs");
                if !azure || url.password().is_some() {
                    return Err(invalid("the root carries user information".into())
                        .mend("give credentials through the environment or the builder"));
                }
            }
            if url.query().is_some() || url.fragment().is_some() {
                return Err(invalid("the root has a query or fragment".into())
                    .mend("give options of the store through the environment or the builder"));
            }
            match url.scheme() {
                "file" => url
                    .to_file_path()
                    .map_err(|()| invalid(format!("the root `{shown}` is no path")))?,
                _ => {
                    if let Some((cause, mend)) = wrong_host(&url) {
                        return Err(invalid(format!("the root cannot be used: {cause}")).mend(mend));
                    }
                    let path = url.path().trim_end_matches('/').to_owned();
                    url.set_path(&path);
                    return Ok(url);
                }
            }
        }
    };
    let path = resolved(&path)
        .map_err(|e| invalid(format!("the root `{shown}` cannot be resolved")).caused_by(e))?;
    // What is left of it is what its URI says: without a slash at its end, and decoded.
    match path.to_str().map(misspelt) {
        Some(None) => {}
        Some(Some((kind, cause, mend))) => {
            return Err(Error::new(kind, BUILD, format!("the root {cause}")).mend(mend));
        }
        None => return Err(invalid(format!("the root `{shown}` is not UTF-8"))),
    }
    Url::from_file_path(&path).map_err(|()| invalid(format!("the root `{shown}` is no path")))
}

/// An absolute path without symbolic links, of which the last parts need not exist.
fn resolved(path: &std::path::Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut existing = absolute.as_path();
    let mut resolved = loop {
        match existing.canonicalize() {
            Ok(resolved) => break resolved,
            Err(e) => match (e.kind(), existing.parent()) {
                (std::io::ErrorKind::NotFound, Some(parent)) => existing = parent,
                _ => return Err(e),
            },
        }
    };
    let rest = absolute.strip_prefix(existing).unwrap_or("".as_ref());
    for part in rest.components() {
        match part {
            // Below the existing part there is no link that could lead elsewhere.
            Component::ParentDir => {
                resolved.pop();
            }
            Component::Normal(part) => resolved.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_spelling() {
        let dir = tempfile::TempDir::new().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let expected = Url::from_file_path(real.join("x")).unwrap();
        for text in [
            real.join("x").display().to_string(),
            real.join("y/../x").display().to_string(),
            dir.path().join("link/x").display().to_string(),
            expected.to_string(),
            format!("{expected}/"),
        ] {
            assert_eq!(root_url(&text).unwrap(), expected, "{text}");
        }
        assert_eq!(
            root_url("s3://bucket/a/b/").unwrap().as_str(),
            "s3://bucket/a/b"
        );
    }

    #[test]
    fn roots_without_sense_or_with_secrets_are_refused() {
        for text in [
            "",
            "s3://key:secret@bucket/x",
            "s3://b/x?key=secret",
            "s3://secret:9000/b",
            "file:/x",
            "s3:/b",
            "~/x",
            " /x",
            "/x\n",
            "file://host/x",
            // What is left of them would not be taken again.
            "/x /",
            "file:///x%20",
            "file:///x%0Ay",
            "file:///%FF",
        ] {
            let error = root_url(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(error.mend_hint().is_some(), "{error}");
        }
        assert!(root_url("abfss://container@account.dfs.core.windows.net/x").is_ok());
    }

    #[tokio::test]
    async fn tables_are_found_by_their_path() {
        let root = root_url("s3://bucket/lake").unwrap();
        let catalog = LocalCatalog::new(root, StorageOptions::default());
        let name = TableName::of("main", "traces", Some("shop")).unwrap();
        assert_eq!(
            catalog.place(&name).await.unwrap().as_str(),
            "s3://bucket/lake/main/traces/shop_otel_spans"
        );
    }
}
