//! The stores of the clouds. What a build leaves out is an error that names the feature.

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod http;

use super::StorageOptions;
use super::renewal::Renewal;
use object_store::ObjectStore;
use std::sync::Arc;
use trace_destination_core::Error;
use url::Url;

type Store = Arc<dyn ObjectStore>;
type Given = Option<Arc<Renewal>>;

#[cfg(feature = "s3")]
pub(super) fn s3(options: &StorageOptions, url: &Url, renewal: Given) -> Result<Store, Error> {
    use super::invalid;
    use http::Connector;
    use object_store::aws::AmazonS3Builder;

    let endpoint = options.s3_endpoint();
    let has_region = ["aws_region", "aws_default_region", "region"]
        .iter()
        .any(|name| options.options.contains_key(*name));
    if endpoint.is_none() && !has_region {
        return Err(invalid(url, "the region of its bucket is not known")
            .mend("set AWS_REGION, or AWS_ENDPOINT_URL for a store that speaks S3's protocol"));
    }
    let http = endpoint.is_some_and(|e| e.starts_with("http://"));
    let allowed = ["aws_allow_http", "allow_http"].iter().any(|name| {
        let value = options.options.get(*name);
        value.is_some_and(|v| matches!(&*v.expose().to_ascii_lowercase(), "true" | "1"))
    });
    if http && !allowed {
        return Err(
            invalid(url, "its endpoint is http: and that is not allowed")
                .mend("set AWS_ALLOW_HTTP=true, or use an endpoint with https:"),
        );
    }
    let mut builder = AmazonS3Builder::new()
        .with_retry(retry(options))
        .with_http_connector(Connector);
    for (name, value) in of(options, "aws_") {
        builder = builder.with_config(key(name)?, value);
    }
    if let Some(renewal) = renewal {
        builder = builder.with_credentials(Arc::new(Renewed(renewal, aws_keys)));
    }
    let store = builder.with_url(url.as_str()).build();
    Ok(Arc::new(store.map_err(|e| unusable(url, e))?))
}

#[cfg(feature = "azure")]
pub(super) fn azure(options: &StorageOptions, url: &Url, renewal: Given) -> Result<Store, Error> {
    use http::Connector;
    use object_store::azure::MicrosoftAzureBuilder;

    let mut builder = MicrosoftAzureBuilder::new()
        .with_retry(retry(options))
        .with_http_connector(Connector);
    for (name, value) in of(options, "azure_") {
        builder = builder.with_config(key(name)?, value);
    }
    if let Some(renewal) = renewal {
        builder = builder.with_credentials(Arc::new(Renewed(renewal, azure_keys)));
    }
    let store = builder.with_url(url.as_str()).build();
    Ok(Arc::new(store.map_err(|e| unusable(url, e))?))
}

#[cfg(feature = "gcs")]
pub(super) fn gcs(options: &StorageOptions, url: &Url, renewal: Given) -> Result<Store, Error> {
    use http::Connector;
    use object_store::gcp::GoogleCloudStorageBuilder;

    let mut builder = GoogleCloudStorageBuilder::new()
        .with_retry(retry(options))
        .with_http_connector(Connector);
    for (name, value) in of(options, "google_") {
        builder = builder.with_config(key(name)?, value);
    }
    if let Some(renewal) = renewal {
        builder = builder.with_credentials(Arc::new(Renewed(renewal, gcp_keys)));
    }
    let store = builder.with_url(url.as_str()).build();
    Ok(Arc::new(store.map_err(|e| unusable(url, e))?))
}

#[cfg(not(feature = "s3"))]
pub(super) fn s3(_: &StorageOptions, url: &Url, _: Given) -> Result<Store, Error> {
    Err(left_out(url, "s3"))
}

#[cfg(not(feature = "azure"))]
pub(super) fn azure(_: &StorageOptions, url: &Url, _: Given) -> Result<Store, Error> {
    Err(left_out(url, "azure"))
}

#[cfg(not(feature = "gcs"))]
pub(super) fn gcs(_: &StorageOptions, url: &Url, _: Given) -> Result<Store, Error> {
    Err(left_out(url, "gcs"))
}

#[cfg(not(all(feature = "s3", feature = "azure", feature = "gcs")))]
fn left_out(url: &Url, feature: &str) -> Error {
    use trace_destination_core::ErrorKind;
    Error::new(
        ErrorKind::Unsupported,
        super::OPEN,
        format!("`{}:` stores are not part of this build", url.scheme()),
    )
    .mend(format!("turn on the feature `{feature}`"))
}

/// The options for one kind of store, by the prefix of their names; options without any prefix are
/// for all.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn of<'a>(
    options: &'a StorageOptions,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_of_another = move |name: &str| {
        let mut prefixes = ["aws_", "azure_", "google_"].into_iter();
        prefixes.any(|p| p != prefix && name.starts_with(p))
    };
    options
        .options
        .iter()
        .filter(move |(name, _)| !is_of_another(name))
        .map(|(name, value)| (name.as_str(), value.expose()))
}

/// A name as the store's client knows it.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn key<K: std::str::FromStr<Err = object_store::Error>>(name: &str) -> Result<K, Error> {
    use trace_destination_core::ErrorKind;
    name.parse().map_err(|e: object_store::Error| {
        Error::new(
            ErrorKind::InvalidConfig,
            super::OPEN,
            format!("there is no storage option `{}`", name.escape_debug()),
        )
        .mend("use a name that object_store's configuration has, such as aws_region")
        .caused_by(e)
    })
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn unusable(url: &Url, error: object_store::Error) -> Error {
    super::invalid(
        url,
        "the store's client does not take it, or the options beside it",
    )
    .mend("check the URL's bucket or container, and the storage options")
    .caused_by(error)
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn retry(options: &StorageOptions) -> object_store::RetryConfig {
    use std::time::Duration;
    object_store::RetryConfig {
        backoff: object_store::BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: options.retry_timeout,
    }
}

/// Credentials of a renewal, in the form one store's client asks for.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
struct Renewed<C>(Arc<Renewal>, fn(&super::Keys) -> Option<C>);

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
impl<C> std::fmt::Debug for Renewed<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Renewed").field(&self.0).finish()
    }
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
#[async_trait::async_trait]
impl<C: std::fmt::Debug + Send + Sync + 'static> object_store::CredentialProvider for Renewed<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        use super::renewal::store_error;
        let keys = self.0.keys().await.map_err(store_error)?;
        (self.1)(&keys).map(Arc::new).ok_or_else(|| {
            let error = Error::new(
                trace_destination_core::ErrorKind::Unsupported,
                "get storage credentials",
                "the catalog gave out credentials of another cloud than the table's",
            );
            store_error(error.mend("check the table's storage location in the catalog"))
        })
    }
}

#[cfg(feature = "s3")]
fn aws_keys(keys: &super::Keys) -> Option<object_store::aws::AwsCredential> {
    match keys {
        super::Keys::Aws {
            key_id,
            secret,
            token,
        } => Some(object_store::aws::AwsCredential {
            key_id: key_id.clone(),
            secret_key: secret.expose().to_owned(),
            token: token.as_ref().map(|t| t.expose().to_owned()),
        }),
        _ => None,
    }
}

#[cfg(feature = "azure")]
fn azure_keys(keys: &super::Keys) -> Option<object_store::azure::AzureCredential> {
    match keys {
        super::Keys::Azure(pairs) => {
            let pair =
                |(name, value): &(String, super::Secret)| (name.clone(), value.expose().to_owned());
            Some(object_store::azure::AzureCredential::SASToken(
                pairs.iter().map(pair).collect(),
            ))
        }
        _ => None,
    }
}

#[cfg(feature = "gcs")]
fn gcp_keys(keys: &super::Keys) -> Option<object_store::gcp::GcpCredential> {
    match keys {
        super::Keys::Gcp(token) => Some(object_store::gcp::GcpCredential {
            bearer: token.expose().to_owned(),
        }),
        _ => None,
    }
}
