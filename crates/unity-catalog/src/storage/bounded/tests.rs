use super::*;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;

const LIMITS: Limits = Limits {
    object: 100,
    pointer: 10,
    ranges: 50,
    listed: 3,
    names: 100,
    time: Duration::from_secs(5),
};

async fn with(objects: &[(&str, usize)]) -> Bounded {
    let store = InMemory::new();
    for (name, size) in objects {
        let content = vec![b' '; *size];
        store.put(&Path::from(*name), content.into()).await.unwrap();
    }
    Bounded::new(Arc::new(store), LIMITS)
}

fn is_bounded<T: fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert!(
        error.source().is_some_and(|e| e.is::<TooLarge>()),
        "{error:?}"
    );
}

async fn read(store: &Bounded, name: &str) -> Result<Bytes> {
    store.get(&Path::from(name)).await?.bytes().await
}

#[tokio::test]
async fn objects_have_a_size() {
    let store = with(&[
        ("fits", 100),
        ("large", 101),
        ("_delta_log/_last_checkpoint", 11),
    ])
    .await;
    assert_eq!(read(&store, "fits").await.unwrap().len(), 100);
    is_bounded(read(&store, "large").await);
    is_bounded(read(&store, "_delta_log/_last_checkpoint").await);
    let (large, fits) = (Path::from("large"), Path::from("fits"));
    assert_eq!(store.get_range(&large, 0..50).await.unwrap().len(), 50);
    is_bounded(store.get_range(&large, 0..51).await);
    is_bounded(store.get_ranges(&fits, &[0..30, 30..60]).await);
    assert_eq!(store.head(&large).await.unwrap().size, 101);
}

#[tokio::test]
async fn listings_have_an_end() {
    let store = with(&[("a", 1), ("b", 1), ("c", 1)]).await;
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 3);
    let store = with(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
    is_bounded(store.list(None).try_collect::<Vec<_>>().await);
    is_bounded(store.list_with_delimiter(None).await);
    let long = "n".repeat(60);
    let store = with(&[(&format!("{long}1"), 1), (&format!("{long}2"), 1)]).await;
    is_bounded(store.list(None).try_collect::<Vec<_>>().await);
}

#[tokio::test]
async fn folders_are_told_from_objects() {
    let store = with(&[("t/a/1", 1), ("t/a/2", 1), ("t/b", 1)]).await;
    let listed = store
        .list_with_delimiter(Some(&Path::from("t")))
        .await
        .unwrap();
    assert_eq!(listed.common_prefixes, [Path::from("t/a")]);
    let objects: Vec<_> = listed.objects.iter().map(|m| m.location.as_ref()).collect();
    assert_eq!(objects, ["t/b"]);
}

#[test]
fn versions_are_numbers_of_the_protocol() {
    for (name, fits) in [
        ("00000000000000000000.json", true),
        ("09223372036854775805.json", true),
        ("09223372036854775807.json", false),
        ("18446744073709551615.checkpoint.parquet", false),
        ("999999999999999999999999999.json", false),
        ("_last_checkpoint", true),
        ("spans-1.parquet", true),
    ] {
        let location = Path::from(format!("_delta_log/{name}"));
        assert_eq!(check_version(&location).is_ok(), fits, "{name}");
    }
    let data = Path::from("999999999999999999999999999.json");
    assert!(check_version(&data).is_ok(), "no file of the log");
}

/// A store whose answers are not what they claim, and never end.
#[tokio::test(start_paused = true)]
async fn bodies_are_as_long_as_they_claim_and_end_in_time() {
    let body = |left, pieces: BoxStream<'static, Result<Bytes>>| Body {
        body: pieces,
        left,
        scan: None,
        end: Instant::now() + LIMITS.time,
        time: LIMITS.time,
    };
    let endless = || stream::repeat_with(|| Ok(Bytes::from_static(b"x"))).boxed();
    let few = || stream::iter([Ok(Bytes::from_static(b"xx"))]).boxed();
    is_bounded(body(9, endless()).stream().try_collect::<Vec<_>>().await);
    is_bounded(body(3, few()).stream().try_collect::<Vec<_>>().await);
    is_bounded(body(1, few()).stream().try_collect::<Vec<_>>().await);
    assert!(
        body(2, few())
            .stream()
            .try_collect::<Vec<_>>()
            .await
            .is_ok()
    );
    let slow = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok(Bytes::from_static(b"x")), ()))
    });
    is_bounded(
        body(99, slow.boxed())
            .stream()
            .try_collect::<Vec<_>>()
            .await,
    );
    is_bounded(
        body(99, stream::pending().boxed())
            .stream()
            .try_collect::<Vec<_>>()
            .await,
    );
}
