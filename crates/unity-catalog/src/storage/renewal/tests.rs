use super::*;
use std::sync::atomic::AtomicUsize;
use trace_destination_core::ErrorKind;

/// Gives out keys that are numbered, or fails.
#[derive(Debug)]
struct Counter {
    asked: Arc<AtomicUsize>,
    life: Option<Duration>,
    fails: Arc<Mutex<bool>>,
}

#[async_trait]
impl Vendor for Counter {
    async fn vend(&self) -> Result<Vended, Error> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
        match *self.fails.lock().await {
            true => Err(Error::new(ErrorKind::Unavailable, "vend", "away").retryable()),
            false => Ok(Vended {
                keys: Keys::Gcp(Secret::new(format!("token-{n}"))),
                life: self.life,
            }),
        }
    }
}

struct Case {
    renewal: Arc<Renewal>,
    asked: Arc<AtomicUsize>,
    fails: Arc<Mutex<bool>>,
}

impl Case {
    async fn new(life: Option<u64>) -> Self {
        let (asked, fails) = (Arc::default(), Arc::default());
        let vendor = Counter {
            asked: Arc::clone(&asked),
            life: life.map(Duration::from_secs),
            fails: Arc::clone(&fails),
        };
        let renewal = Renewal::start(Box::new(vendor)).await.unwrap();
        Self {
            renewal,
            asked,
            fails,
        }
    }

    async fn token(&self) -> Result<String, ErrorKind> {
        match &*self.renewal.keys().await.map_err(|e| e.kind())? {
            Keys::Gcp(token) => Ok(token.expose().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn later(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn renewed_a_margin_before_the_end() {
    let case = Case::new(Some(3600)).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    later(3600 - 310).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    later(20).await;
    assert_eq!(case.token().await.unwrap(), "token-2");
    assert_eq!(case.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn short_lives_are_used_for_half() {
    let case = Case::new(Some(60)).await;
    later(29).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    later(2).await;
    assert_eq!(case.token().await.unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn without_an_end_never_renewed() {
    let case = Case::new(None).await;
    later(365 * 24 * 3600).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    assert_eq!(case.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_that_come_at_once_ask_once() {
    let case = Case::new(Some(60)).await;
    later(31).await;
    let tokens = futures_util::future::join_all((0..20).map(|_| case.token())).await;
    assert!(tokens.iter().all(|t| t.as_deref() == Ok("token-2")));
    let refused = case.renewal.generation();
    let replaced = (0..20).map(|_| case.renewal.replace(refused));
    for done in futures_util::future::join_all(replaced).await {
        done.unwrap();
    }
    assert_eq!(case.token().await.unwrap(), "token-3");
    assert_eq!(case.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_is_away_is_not_noticed_before_the_end() {
    let case = Case::new(Some(3600)).await;
    *case.fails.lock().await = true;
    later(3600 - 200).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    assert_eq!(case.token().await.unwrap(), "token-1");
    assert_eq!(case.asked(), 2, "not asked again at once");
    later(11).await;
    assert_eq!(case.token().await.unwrap(), "token-1");
    assert_eq!(case.asked(), 3);
    later(200).await;
    assert_eq!(case.token().await, Err(ErrorKind::Unavailable));
    *case.fails.lock().await = false;
    assert_eq!(case.token().await.unwrap(), "token-5");
}

#[test]
fn the_catalogs_error_is_found_beneath_the_stores() {
    let error = Error::new(ErrorKind::PermissionDenied, "vend", "no");
    let wrapped = store_error(error);
    assert_eq!(
        renewal_error(&wrapped).map(Error::kind),
        Some(ErrorKind::PermissionDenied)
    );
    let other = object_store::Error::NotImplemented {
        operation: "x".into(),
        implementer: "y".into(),
    };
    assert!(renewal_error(&other).is_none());
}

#[tokio::test(start_paused = true)]
async fn secrets_are_scrubbed_and_not_shown() {
    let case = Case::new(None).await;
    assert_eq!(case.renewal.scrub("x token-1 y".into()), "x [secret] y");
    assert!(!format!("{:?}", case.renewal).contains("token-1"));
    let keys = Keys::Aws {
        key_id: "AKID".into(),
        secret: Secret::new("hunter2-a"),
        token: Some(Secret::new("hunter2-b")),
    };
    assert_eq!(keys.secrets(), ["hunter2-a", "hunter2-b"]);
    assert!(!format!("{keys:?}").contains("hunter2"));
    let sas = Keys::Azure(vec![
        ("sv".into(), Secret::new("2022-11-02")),
        ("sig".into(), Secret::new("hunter2-c")),
    ]);
    assert_eq!(sas.secrets(), ["hunter2-c"]);
}
