//! Making a location: from parts, from a URI, from the environment; checked once, in `build()`.

use crate::access::{Access, Source};
use crate::catalog::local::root_url;
use crate::catalog::rest::{CatalogServer, DATABRICKS_HOST, UNITY_CATALOG_URI};
use crate::config::{
    ANNOTATIONS_PARAM, CREATE_PARAM, DEFAULT_ROOT, DURABLE_PARAM, PARAMS, ROOT_PARAM, SCHEME,
    SERVER_PARAM, UNITY_CATALOG_ROOT,
};
use crate::error::BUILD;
use crate::location::UnityCatalogLocation;
use crate::name::TableName;
use crate::options::MissingTable;
use crate::storage::StorageOptions;
use trace_destination_core::{EnvSource, Error, ErrorKind, LocationUri, mend_of_parameter};

/// Builds a [`UnityCatalogLocation`]; see [`UnityCatalogLocation::builder`]. What code sets beats
/// what the URI says, and that what the environment says.
#[derive(Clone, Debug, Default)]
pub struct UnityCatalogLocationBuilder {
    name: Option<String>,
    root: Option<String>,
    /// The server's address, where the URI names it.
    address: Option<String>,
    server: Option<CatalogServer>,
    missing: MissingTable,
    storage: StorageOptions,
    /// What the URI or the builder says of it, which beats the options of stores.
    durable: Option<bool>,
    without_annotations: bool,
    deferred: Vec<Error>,
}

impl UnityCatalogLocationBuilder {
    /// `catalog.schema.prefix` for the table `<prefix>_otel_spans`, or `catalog.schema` for the
    /// schema's one table of traces, `mlflow_experiment_trace_otel_spans`. Upper and lower case are
    /// kept; Databricks folds names to lower case.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The catalog is this folder, or this place in an object store: tables are
    /// `<root>/<catalog>/<schema>/<table>`. A relative path is relative to the current directory
    /// when `build` is called.
    #[must_use]
    pub fn with_root(mut self, root: impl Into<String>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// What to do when the table is missing.
    #[must_use]
    pub fn with_missing(mut self, missing: MissingTable) -> Self {
        self.missing = missing;
        self
    }

    /// The catalog is this server.
    #[must_use]
    pub fn with_server(mut self, server: CatalogServer) -> Self {
        self.server = Some(server);
        self
    }

    /// How to reach object stores, where the catalog does not say or gives no credentials out.
    #[must_use]
    pub fn with_storage(mut self, storage: StorageOptions) -> Self {
        self.storage = storage;
        self
    }

    /// Whether a batch in local files is on the disk before it counts as stored; see
    /// [`StorageOptions::with_durable`], which this overrides.
    #[must_use]
    pub fn with_durable(mut self, durable: bool) -> Self {
        self.durable = Some(durable);
        self
    }

    /// Whether what is set on a trace as a whole (tags, metadata, name, session, user, previews, run)
    /// is stored in the table of annotations, `<prefix>_otel_annotations`, which is made with the
    /// first such value; `true` unless this says otherwise. Otherwise it is on the root span, as
    /// attributes.
    #[must_use]
    pub fn with_annotations(mut self, annotations: bool) -> Self {
        self.without_annotations = !annotations;
        self
    }

    /// Everything a URI such as `uc://main.traces.shop?root=lakehouse` says. Values it does not
    /// give stay as they are.
    #[must_use]
    pub fn with_uri(mut self, uri: &LocationUri) -> Self {
        match name_of(uri) {
            Ok(name) => self.name = Some(name.to_owned()),
            Err(error) => self.deferred.push(error.at(uri)),
        }
        for (key, value) in uri.query_pairs() {
            match (key, value) {
                (ROOT_PARAM, _) => self.root = Some(value.into()),
                (SERVER_PARAM, _) => self.address = Some(value.into()),
                (CREATE_PARAM, "true") => self.missing = MissingTable::Create,
                (CREATE_PARAM, "false") => self.missing = MissingTable::Fail,
                (CREATE_PARAM, _) => self.deferred.push(
                    invalid("parameter `create` is not understood")
                        .mend("write true or false")
                        .at(uri),
                ),
                (DURABLE_PARAM, "true") => self.durable = Some(true),
                (DURABLE_PARAM, "false") => self.durable = Some(false),
                (ANNOTATIONS_PARAM, "true") => self.without_annotations = false,
                (ANNOTATIONS_PARAM, "false") => self.without_annotations = true,
                (ANNOTATIONS_PARAM, _) => self.deferred.push(
                    invalid("parameter `annotations` is not understood")
                        .mend("write true or false")
                        .at(uri),
                ),
                (DURABLE_PARAM, _) => self.deferred.push(
                    invalid("parameter `durable` is not understood")
                        .mend("write true or false")
                        .at(uri),
                ),
                _ => self.deferred.push(
                    invalid(format!("parameter `{}` is unknown", key.escape_debug()))
                        .mend(mend_of_parameter(key, &PARAMS))
                        .at(uri),
                ),
            }
        }
        self
    }

    /// Whatever the environment says about the catalog and its stores and is not set already; see
    /// the table in the [crate documentation](crate#environment). Call it after
    /// [`with_uri`](Self::with_uri).
    #[must_use]
    pub fn with_env(mut self, env: &dyn EnvSource) -> Self {
        if let Err(error) = self.read_env(env) {
            self.deferred.push(error);
        }
        self
    }

    fn read_env(&mut self, env: &dyn EnvSource) -> Result<(), Error> {
        self.storage = std::mem::take(&mut self.storage).or_env(env)?;
        if self.root.is_some() || self.server.is_some() {
            return Ok(());
        }
        let (root, server) = (env.var(UNITY_CATALOG_ROOT)?, CatalogServer::from_env(env)?);
        match (&self.address, root, server) {
            // Credentials in the environment are for the server the environment names.
            (Some(address), _, Some(server)) => {
                let named = CatalogServer::new(address)?;
                self.server = (named.address() == server.address()).then_some(server);
            }
            (Some(_), _, None) => {}
            (None, Some(_), Some(_)) => {
                let named = match env.var(UNITY_CATALOG_URI)? {
                    Some(_) => UNITY_CATALOG_URI,
                    None => DATABRICKS_HOST,
                };
                return Err(invalid(format!(
                    "{UNITY_CATALOG_ROOT} names a catalog, and {named} a server that is another"
                ))
                .mend("unset one of them, or write root=… or server=… in the URI"));
            }
            (None, root, server) => (self.root, self.server) = (root, server),
        }
        Ok(())
    }

    /// Checks everything that can be known without asking the catalog or the store, and makes a
    /// root absolute and free of symbolic links.
    ///
    /// # Errors
    /// `InvalidConfig` for a missing or unusable name, root, server or option, and for a location
    /// whose URI is in use with another server configuration, other credentials or storage options.
    pub fn build(self) -> Result<UnityCatalogLocation, Error> {
        if let Some(error) = self.deferred.into_iter().next() {
            return Err(error);
        }
        let text = self
            .name
            .ok_or_else(|| invalid("no table is named").mend("write uc://catalog.schema.prefix"))?;
        let parts: Vec<&str> = text.split('.').collect();
        let name = match parts[..] {
            [catalog, schema] => TableName::of(catalog, schema, None)?,
            [catalog, schema, prefix] => TableName::of(catalog, schema, Some(prefix))?,
            _ => {
                return Err(invalid(format!(
                    "`{}` has {} parts",
                    text.escape_debug(),
                    parts.len()
                ))
                .mend("write catalog.schema.prefix, or catalog.schema"));
            }
        };
        let server = match (self.server, self.address) {
            (Some(server), Some(address)) => {
                let named = CatalogServer::new(&address)?;
                if named.address() != server.address() {
                    return Err(
                        invalid("two different servers are named").mend("leave one of them out")
                    );
                }
                Some(server)
            }
            (Some(server), None) => Some(server),
            (None, Some(address)) => Some(CatalogServer::new(&address)?),
            (None, None) => None,
        };
        let (key, place, source) = match (self.root, server) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "a root and a server are given, and only one can be the catalog",
                )
                .mend("leave one of them out"));
            }
            (root, None) => {
                let root = root_url(root.as_deref().unwrap_or(DEFAULT_ROOT))?;
                self.storage.check(&root)?;
                (ROOT_PARAM, shown(&root), Source::Root(root))
            }
            (None, Some(server)) => {
                let address = server.address().to_owned();
                (SERVER_PARAM, address, Source::Server(server))
            }
        };
        let mut query = vec![(key, place.as_str())];
        if self.missing == MissingTable::Fail {
            query.push((CREATE_PARAM, "false"));
        }
        let durable = self.durable.unwrap_or(self.storage.is_durable());
        if !durable {
            query.push((DURABLE_PARAM, "false"));
        }
        if self.without_annotations {
            query.push((ANNOTATIONS_PARAM, "false"));
        }
        // A host is folded to lower case, a path is not.
        let uri = match text.chars().any(|c| c.is_ascii_uppercase() || c == '@') {
            true => LocationUri::from_parts(SCHEME, None, &text, query)?,
            false => LocationUri::from_parts(SCHEME, Some(&text), "", query)?,
        };
        let storage = self.storage.with_durable(durable);
        let annotations = (!self.without_annotations).then(|| name.annotations());
        let annotations = annotations.flatten();
        Ok(UnityCatalogLocation {
            access: Access::claim(&uri, Access { source, storage })?,
            uri,
            name,
            missing: self.missing,
            annotations,
            wrap: None,
        })
    }
}

/// A root as it is written in a URI: folders as paths.
fn shown(root: &url::Url) -> String {
    match root.to_file_path() {
        Ok(path) if root.scheme() == "file" => path.display().to_string(),
        _ => root.to_string(),
    }
}

/// `catalog.schema[.prefix]` in `uc://…`, or in `uc:…`, where case is kept.
fn name_of(uri: &LocationUri) -> Result<&str, Error> {
    let mend = "write uc://catalog.schema.prefix, or uc:Catalog.Schema.Prefix where case matters";
    if uri.scheme() != SCHEME {
        return Err(invalid("the scheme is not `uc`").mend(mend));
    }
    match (uri.authority(), uri.path()) {
        (Some(name), "") if !name.is_empty() => Ok(name),
        (None, name) if !name.is_empty() && !name.contains('/') => Ok(name),
        _ => Err(invalid("it does not name a table").mend(mend)),
    }
}

pub(crate) fn invalid(cause: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, BUILD, cause.into())
}
