use super::super::renewal::{Keys, Vended, Vendor};
use super::*;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store that takes one token, in the hand of a client that sends the renewal's.
#[derive(Debug)]
struct Strict {
    store: InMemory,
    takes: Arc<AtomicUsize>,
    renewal: Arc<Renewal>,
    refusal: fn(String) -> Error,
    requests: AtomicUsize,
}

impl Strict {
    async fn check(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let keys = self.renewal.keys().await.map_err(store_error)?;
        let Keys::Gcp(token) = &*keys else {
            panic!("{keys:?}")
        };
        match token.expose() == format!("hunter2-{}", self.takes.load(Ordering::SeqCst)) {
            true => Ok(()),
            // As S3 does, with the token in the answer.
            false => Err((self.refusal)(token.expose().to_owned())),
        }
    }
}

impl fmt::Display for Strict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strict")
    }
}

/// The same store, which can be called behind an `Arc`.
#[derive(Debug, Clone)]
struct Shared(Arc<Strict>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strict")
    }
}

#[async_trait]
impl ObjectStore for Shared {
    async fn put_opts(&self, at: &Path, body: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.check().await?;
        self.0.store.put_opts(at, body, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.check().await?;
        self.0.store.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.check().await?;
        self.0.store.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.0.clone(), prefix.cloned());
        let opened = async move {
            this.check().await?;
            Ok::<_, Error>(this.store.list(prefix.as_ref()))
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.check().await?;
        self.0.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.check().await?;
        self.0.store.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Counter(Arc<AtomicUsize>);

#[async_trait]
impl Vendor for Counter {
    async fn vend(&self) -> std::result::Result<Vended, trace_destination_core::Error> {
        let n = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Vended {
            keys: Keys::Gcp(Secret::new(format!("hunter2-{n}"))),
            life: None,
        })
    }
}

struct Case {
    guarded: Guarded,
    strict: Arc<Strict>,
    asked: Arc<AtomicUsize>,
}

async fn case(refusal: fn(String) -> Error) -> Case {
    let asked = Arc::new(AtomicUsize::new(0));
    let vendor = Box::new(Counter(asked.clone()));
    let renewal = Renewal::start(vendor).await.unwrap();
    let strict = Arc::new(Strict {
        store: InMemory::new(),
        takes: Arc::new(AtomicUsize::new(1)),
        renewal: renewal.clone(),
        refusal,
        requests: AtomicUsize::new(0),
    });
    Case {
        guarded: Guarded::new(Arc::new(Shared(strict.clone())), Some(renewal), Vec::new()),
        strict,
        asked,
    }
}

fn over(token: String) -> Error {
    Error::Generic {
        store: "S3",
        source: format!("400 Bad Request: <Code>ExpiredToken</Code><Token-0>{token}</Token-0>")
            .into(),
    }
}

fn unauthenticated(token: String) -> Error {
    Error::Unauthenticated {
        path: "x".into(),
        source: token.into(),
    }
}

fn forbidden(token: String) -> Error {
    Error::PermissionDenied {
        path: "x".into(),
        source: format!("no for {token}").into(),
    }
}

fn away(token: String) -> Error {
    Error::Generic {
        store: "S3",
        source: format!("503 for {token}").into(),
    }
}

async fn put(store: &Guarded, at: &str) -> Result<()> {
    let options = PutOptions {
        mode: object_store::PutMode::Create,
        ..PutOptions::default()
    };
    let at = Path::from(at);
    let put = store.put_opts(&at, "content".into(), options);
    put.await.map(drop)
}

#[tokio::test]
async fn credentials_refused_before_their_time_are_replaced_once() {
    for refusal in [over, unauthenticated, forbidden] {
        let case = case(refusal).await;
        put(&case.guarded, "a").await.unwrap();
        assert_eq!(case.asked.load(Ordering::SeqCst), 1);
        // Taken back in the middle of work: each kind of request gets over it.
        case.strict.takes.store(2, Ordering::SeqCst);
        put(&case.guarded, "b").await.unwrap();
        assert_eq!(case.asked.load(Ordering::SeqCst), 2);
        let names: Vec<_> = case.guarded.list(None).try_collect().await.unwrap();
        assert_eq!(names.len(), 2);
        let read = case.guarded.get(&Path::from("a")).await.unwrap();
        assert_eq!(read.bytes().await.unwrap(), "content");
    }
}

#[tokio::test]
async fn a_listing_gets_over_it_too() {
    let case = case(over).await;
    put(&case.guarded, "a").await.unwrap();
    case.strict.takes.store(2, Ordering::SeqCst);
    let listed: Vec<_> = case.guarded.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    case.strict.takes.store(3, Ordering::SeqCst);
    let listed = case.guarded.list_with_delimiter(None).await.unwrap();
    assert_eq!(listed.objects.len(), 1);
}

#[tokio::test]
async fn others_that_are_refused_too_are_an_error_without_secrets() {
    for (refusal, requests) in [(over as fn(String) -> Error, 2), (forbidden, 2), (away, 1)] {
        let case = case(refusal).await;
        case.strict.takes.store(99, Ordering::SeqCst);
        let error = put(&case.guarded, "a").await.unwrap_err();
        assert_eq!(case.strict.requests.load(Ordering::SeqCst), requests);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("[secret]"), "{shown}");
        let shown = format!("{:?}", case.guarded);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_refusal_that_is_meant_is_not_asked_about_each_time() {
    let case = case(forbidden).await;
    case.strict.takes.store(99, Ordering::SeqCst);
    for _ in 0..5 {
        let error = put(&case.guarded, "a").await.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
    }
    assert_eq!(case.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn other_errors_pass_as_they_are() {
    let case = case(over).await;
    put(&case.guarded, "a").await.unwrap();
    let error = put(&case.guarded, "a").await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    let error = case.guarded.get(&Path::from("z")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(case.asked.load(Ordering::SeqCst), 1);
}
