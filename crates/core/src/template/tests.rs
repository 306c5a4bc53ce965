use super::pattern::Marker;
use super::*;
use crate::location::{Capabilities, Guarantee, TraceSink};
use crate::memory::MemoryLocation;
use crate::uri::LocationUri;
use async_trait::async_trait;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place that is a value only.
#[derive(Debug)]
struct Place(LocationUri);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Place {
    fn uri(&self) -> &LocationUri {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Err(Error::new(ErrorKind::Unsupported, "open", "a value only"))
    }
}

fn place(uri: &LocationUri) -> Result<Arc<dyn TraceLocation>, Error> {
    Ok(Arc::new(Place(uri.clone())))
}

fn no_journal(name: &str) -> Result<(), &'static str> {
    match name.ends_with("-wal") {
        true => Err("it is a journal"),
        false => Ok(()),
    }
}

/// One scheme for each kind of hole.
fn registry() -> Registry {
    Registry::new()
        .with_scheme("memory", |uri| {
            Ok(Arc::new(MemoryLocation::from_uri(uri)?) as Arc<dyn TraceLocation>)
        })
        .with_holes("memory", MemoryLocation::holes())
        .with_scheme("name", place)
        .with_holes(
            "name",
            [Hole::name(NameRule::Identifier)
                .in_parts('.', 1..=2)
                .with_max_len(12)],
        )
        .with_scheme("file", place)
        .with_holes(
            "file",
            [
                Hole::file(NameRule::Segment).with_check(no_journal),
                Hole::folder(NameRule::Segment),
            ],
        )
        .with_scheme("http", place)
        .with_holes(
            "http",
            [
                Hole::query("experiment_name", NameRule::Printable),
                Hole::query("table", NameRule::Identifier)
                    .in_parts('.', 2..=2)
                    .with_ending("_spans"),
            ],
        )
        .with_scheme("exact", place)
        .with_holes("exact", [Hole::name(NameRule::Exact)])
        .with_scheme("otlp+http", place)
}

fn template(text: &str) -> Template {
    registry().template(text).unwrap()
}

fn to(template: &Template, tenant: &str) -> Result<Destination, Error> {
    template.destination([("tenant", tenant)])
}

#[test]
fn names_are_put_into_components() {
    for (text, tenant, expected) in [
        (
            "memory:t-{tenant}",
            "a,b&c?d#e%2C",
            "memory:t-a%2Cb&c%3Fd%23e%252C",
        ),
        (
            "name://main.agents.{tenant}",
            "acme",
            "name://main.agents.acme",
        ),
        (
            "name:Main.{tenant}?root=/tmp/a b",
            "acme",
            "name:Main.acme?root=/tmp/a%20b",
        ),
        (
            "file:///srv/{tenant}/t.db",
            "acme.com",
            "file:///srv/acme.com/t.db",
        ),
        (
            "file:////srv/t-{tenant}.db?x=%2C",
            "a-b",
            "file:////srv/t-a-b.db?x=%2C",
        ),
        (
            "HTTP://Host:80/?b=%26&experiment_name=t/{tenant}",
            "a b&c=d?e,f",
            "http://host?b=%26&experiment_name=t/a%20b%26c%3Dd%3Fe%2Cf",
        ),
        (
            "http://h?table=c.s.{tenant}_spans",
            "acme",
            "http://h?table=c.s.acme_spans",
        ),
        // A brace that is encoded is no hole.
        ("memory:%7Btenant%7D-{tenant}", "a", "memory:%7Btenant%7D-a"),
        // A variable may occur again, and others may stand beside it.
        ("file:///{tenant}/{tenant}.db", "a", "file:///a/a.db"),
    ] {
        let destination = to(&template(text), tenant).unwrap();
        assert_eq!(destination.to_string(), expected, "{text}");
        assert_eq!(destination.locations().len(), 1);
    }
}

#[test]
fn what_cannot_be_confined_is_no_template() {
    for (text, said) in [
        ("memory:fixed", "no hole"),
        ("", "no hole"),
        ("{tenant}", "stands in the scheme"),
        ("{tenant}:x", "stands in the scheme"),
        ("mem{tenant}:x", "stands in the scheme"),
        ("memory:%{tenant}", "two hex digits"),
        ("memory:%4{tenant}", "two hex digits"),
        ("memory:{tenant", "not part of a hole"),
        ("memory:tenant}", "not part of a hole"),
        ("memory:{{tenant}}", "not part of a hole"),
        ("memory:{ten,ant}", "not part of a hole"),
        ("memory:{}", "not a name"),
        ("memory:{Tenant}", "not a name"),
        ("memory:{a}{b}", "no fixed text between"),
        ("memory:x?{tenant}", "name of a parameter"),
        ("memory:x?{tenant}=1", "name of a parameter"),
        ("memory:x?k={tenant}", "where no name may stand"),
        ("ftp:{tenant}", "no backend understands `ftp:`"),
        ("http://{tenant}?experiment_name=x", "stands in the host"),
        ("http://h:{tenant}?experiment_name=x", "stands in the host"),
        ("http://{tenant}@h?experiment_name=x", "stands in the host"),
        ("http://h.{tenant}/?experiment_name=x", "stands in the host"),
        (
            "http://h/{tenant}?experiment_name=x",
            "where no name may stand",
        ),
        ("http://h?experiment_id={tenant}", "where no name may stand"),
        (
            "http://h?table={tenant}.s.t_spans",
            "where no name may stand",
        ),
        (
            "http://h?table=c.s.{tenant}",
            "must have `_spans` behind it",
        ),
        (
            "http://h?table=c.s.t.{tenant}_spans",
            "where no name may stand",
        ),
        ("file:///srv/{tenant}-wal", "no name fits"),
        ("name://main.far-too-long-{tenant}", "no name fits"),
        ("otlp+http://h/{tenant}", "where no name may stand"),
        ("otlp+http://{tenant}", "stands in the host"),
        ("name://{tenant}.s.t", "where no name may stand"),
        ("name://c.s.t.{tenant}", "where no name may stand"),
        ("name://c.s.t?root={tenant}", "where no name may stand"),
        ("memory:{tenant},discard", "no place"),
        ("memory:{tenant},unset", "no place"),
        ("memory:{tenant},", "no scheme"),
        ("memory:{tenant},otlp+http://u:secret@h", "user information"),
        ("memory:{a}-{b}-{c}-{d}-{e}-{f}-{g}-{h}-{i}", "more than 8"),
    ] {
        let error = registry()
            .template(text)
            .map(|t| t.to_string())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}: {error}");
        assert!(error.to_string().contains(said), "{text}: {error}");
        assert!(error.mend_hint().is_some(), "{text}: {error}");
        let all = format!("{error} {error:?}");
        assert!(!all.contains("secret"), "{all}");
        assert!(
            !error.to_string().contains("zqx"),
            "a marker is shown: {error}"
        );
    }
    // The places where a name may be are said.
    let error = registry()
        .template("http://{tenant}")
        .unwrap_err()
        .to_string();
    assert!(error.contains("the value of `experiment_name`"), "{error}");
    assert!(
        error.contains("part 3 (divided by `.`) of the value of `table`"),
        "{error}"
    );
}

#[test]
fn locations_of_one_template_that_can_meet_are_refused() {
    for text in [
        "memory:{tenant},memory:audit",
        "memory:audit,memory:{tenant}",
        "memory:{tenant},memory:{tenant}",
        "memory:{tenant},memory:x-{tenant}",
        "memory:{a},memory:{b}",
        "name://main.agents.{tenant},name://main.agents.audit?create=false",
        "name://Main.{tenant},name:MAIN.Agents",
        "http://h?experiment_name={tenant},http://h?experiment_name=audit&workspace=w",
    ] {
        let error = registry().template(text).unwrap_err().to_string();
        assert!(error.contains("can become one place"), "{text}: {error}");
    }
    for text in [
        "memory:t-{tenant},memory:audit",
        "memory:{tenant}-a,memory:{tenant}-b",
        "memory:{tenant},name://main.agents.{tenant}",
        "name://main.agents.{tenant}?root=/a,name://main.agents.{tenant}?root=/b",
        "http://one?experiment_name={tenant},http://two?experiment_name={tenant}",
    ] {
        let destination = to(&template(text), "acme").unwrap();
        assert_eq!(destination.locations().len(), 2, "{text}");
    }
    // What every tenant shares is the same value for all.
    let shared = template("memory:t-{tenant},memory:audit");
    assert_eq!(
        to(&shared, "audit").unwrap().to_string(),
        "memory:audit,memory:t-audit"
    );
}

#[test]
fn names_that_do_not_fit_are_refused_with_the_hole_and_the_rule() {
    let long = "x".repeat(MAX_VALUE + 1);
    for (text, tenant, said) in [
        ("memory:{tenant}", "", "it is empty"),
        ("memory:{tenant}", "a\nb", "a control character"),
        ("memory:{tenant}", "a\0", "a control character"),
        ("memory:{tenant}", "a\u{202e}b", "an invisible character"),
        ("memory:{tenant}", "a\u{200b}", "an invisible character"),
        ("memory:{tenant}", " a", "white space"),
        ("memory:{tenant}", "a\u{a0}", "white space"),
        ("memory:{tenant}", "//a", "starts with `//`"),
        ("memory:{tenant}", &long, "longer than any place"),
        ("memory:{tenant}", &"x".repeat(256), "longer than the place"),
        ("name://main.agents.{tenant}", "Acme", "lower-case"),
        ("name://main.agents.{tenant}", "a.b", "lower-case"),
        ("name://main.agents.{tenant}", "\u{212a}raft", "lower-case"),
        ("name://main.agents.{tenant}", "a,discard", "lower-case"),
        ("name://main.agents.{tenant}", "a?root=/evil", "lower-case"),
        (
            "name://main.agents.{tenant}",
            "0123456789abc",
            "longer than the place",
        ),
        ("file:///srv/{tenant}.db", "a/b", "lower-case"),
        ("file:///srv/{tenant}.db", "a\\b", "lower-case"),
        ("file:///srv/{tenant}", "..", "begins or ends with `.`"),
        ("file:///srv/{tenant}", "a-wal", "it is a journal"),
        ("http://h?experiment_name={tenant}", "Acme", "upper-case"),
        (
            "http://h?experiment_name={tenant}",
            "\u{e9}",
            "beyond ASCII",
        ),
    ] {
        let error = to(&template(text), tenant).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{tenant:?}: {error}");
        let shown = error.to_string();
        assert!(
            shown.contains("`{tenant}`") && shown.contains(said),
            "{shown}"
        );
        assert!(shown.contains(&text[..7]), "{shown}");
        assert!(
            !shown.contains(char::is_control) && shown.len() < 600,
            "{shown}"
        );
        assert!(error.mend_hint().is_some(), "{shown}");
    }
}

#[test]
fn two_variables_in_one_part_are_told_apart() {
    let template = template("memory:{org}/-/{team}");
    let to = |org: &str, team: &str| template.destination([("org", org), ("team", team)]);
    assert_eq!(to("a", "b/-/c").unwrap().to_string(), "memory:a/-/b/-/c");
    for org in ["a/-/b", "a/", "/"] {
        let error = to(org, "c").unwrap_err().to_string();
        assert!(
            error.contains("`{org}`") && error.contains("stands behind it"),
            "{error}"
        );
    }
}

#[test]
fn variables_are_given_once_each() {
    let template = template("memory:{org}-{team}");
    assert_eq!(template.variables().collect::<Vec<_>>(), ["org", "team"]);
    for (given, said) in [
        (&[("org", "a")][..], "`team`"),
        (&[], "`org`"),
        (&[("org", "a"), ("team", "b"), ("team", "b")], "given twice"),
        (&[("org", "a"), ("team", "b"), ("x\n", "b")], "`x\\n` of"),
        (&[("org", "a"); 20], "given twice"),
    ] {
        let error = template.destination(given.iter().copied()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(said), "{error}");
    }
    // A map of owned text, or of references to it.
    let owned = HashMap::from([
        ("team".to_owned(), "b".to_owned()),
        ("org".into(), "a".into()),
    ]);
    assert_eq!(
        template.destination(&owned).unwrap().to_string(),
        "memory:a-b"
    );
    assert_eq!(
        template.destination(owned).unwrap().to_string(),
        "memory:a-b"
    );
}

#[test]
fn the_same_name_is_the_same_value() {
    let template = template("memory:t-{tenant}");
    let names: Vec<String> = (0..10_000).map(|i| format!("tenant-{i}")).collect();
    let first: Vec<Destination> = names.iter().map(|n| to(&template, n).unwrap()).collect();
    for (name, first) in names.iter().zip(&first) {
        assert!(
            to(&template, name).unwrap().same(first),
            "{name} was made again"
        );
    }
    // Clones share what is kept.
    assert!(to(&template.clone(), "tenant-7").unwrap().same(&first[7]));
}

#[test]
fn a_bounded_cache_forgets_and_makes_again() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let registry = Registry::new()
        .with_scheme("name", move |uri| {
            count.fetch_add(1, Ordering::Relaxed);
            place(uri)
        })
        .with_holes("name", [Hole::name(NameRule::Exact)]);
    let template = registry.template("name:{tenant}").unwrap().with_cache(100);
    for i in 0..1000 {
        to(&template, &format!("t{i}")).unwrap();
    }
    let cache = template.cache.as_ref().unwrap();
    assert!(cache.len() <= 100, "{}", cache.len());
    let before = made.load(Ordering::Relaxed);
    for i in 0..1000 {
        let name = format!("t{i}");
        assert_eq!(
            to(&template, &name).unwrap().to_string(),
            format!("name:{name}")
        );
    }
    assert!(made.load(Ordering::Relaxed) >= before + 900);
    // Refused names are not kept, and take no room of others.
    to(&template, "t0").unwrap();
    let before = made.load(Ordering::Relaxed);
    for i in 0..1000 {
        assert!(to(&template, &format!("t{i}\n")).is_err());
    }
    to(&template, "t0").unwrap();
    assert_eq!(made.load(Ordering::Relaxed), before);
    for few in [1, 2, 3] {
        let small = template.clone().with_cache(few);
        for i in 0..100 {
            to(&small, &format!("t{}", i % 7)).unwrap();
        }
        assert!(small.cache.as_ref().unwrap().len() <= few);
    }
    let without = template.with_cache(0);
    assert_eq!(to(&without, "a").unwrap(), to(&without, "a").unwrap());
}

#[test]
fn threads_that_ask_at_once_get_one_value() {
    let template = template("memory:once-{tenant}");
    let barrier = std::sync::Barrier::new(4);
    let all: Vec<Destination> = std::thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            to(&template, "acme").unwrap()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(all.iter().all(|d| d.same(&all[0])));
}

#[test]
fn the_sampling_ratio_is_on_every_destination() {
    let template = template("memory:{tenant}").with_cache(7);
    let sampled = template.clone().with_sampling_ratio(0.25).unwrap();
    assert_eq!(to(&sampled, "a").unwrap().sampling_ratio(), Some(0.25));
    assert!(to(&sampled, "a").unwrap().same(&to(&sampled, "a").unwrap()));
    assert_eq!(to(&template, "a").unwrap().sampling_ratio(), None);
    assert!(template.with_sampling_ratio(f64::NAN).is_err());
}

#[test]
fn a_location_that_moves_a_name_is_refused() {
    // Folds what its hole does not declare: the token survives, an upper-case name does not.
    let folding = Registry::new()
        .with_scheme("x", |uri| place(&uri.as_str().to_lowercase().parse()?))
        .with_holes("x", [Hole::name(NameRule::Exact)]);
    let template = folding.template("x:{tenant}").unwrap();
    assert!(to(&template, "acme").is_ok());
    let error = to(&template, "Acme").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    assert!(
        error.to_string().contains("stands for another one"),
        "{error}"
    );
    // Drops the name: every tenant would have one place.
    let dropping = Registry::new()
        .with_scheme("x", |_| place(&"x:all".parse()?))
        .with_holes("x", [Hole::name(NameRule::Exact)]);
    let error = dropping.template("x:{tenant}").unwrap_err().to_string();
    assert!(error.contains("cannot be confined"), "{error}");
    // A scheme that is replaced loses its holes.
    let replaced = registry().with_scheme("memory", place);
    assert!(replaced.template("memory:{tenant}").is_err());
}

#[test]
fn markers_do_not_mix_with_the_text() {
    for text in [
        "memory:zqx0q-{tenant}",
        "memory:zqx{tenant}",
        "memory:{tenant}q0q",
        "memory:ZQX0Q{tenant}zqx1q0q",
        "memory:%7Aqx0q0q{tenant}",
    ] {
        let template = template(text);
        let uri: LocationUri = text.replace("{tenant}", "acme").parse().unwrap();
        assert_eq!(to(&template, "acme").unwrap().to_string(), uri.to_string());
    }
}

#[test]
fn a_template_prints_as_it_is_parsed() {
    for text in [
        "memory:t-{tenant}",
        "http://h?experiment_name=a%2C{tenant}%7B&x=1,memory:{tenant}",
        "file:////srv/{tenant}/{team}.db",
    ] {
        let template = template(text);
        assert_eq!(template.to_string(), text);
        assert_eq!(format!("{template:?}"), format!("Template({text})"));
    }
}

const TEMPLATES: [&str; 9] = [
    "exact://h{a}",
    "memory:{a}",
    "memory:{a}/{b}",
    "memory:x{a}--{b}",
    "name://main.{a}.p-{b}?root=/lake&create=false",
    "name:Main.{a}X{b}",
    "file:////srv/{a}-{b}/t.db?x=1",
    "file:///{a}/{b}.db",
    "http://h:8080/base?experiment_name={a} {b}&workspace=w",
];

/// Names as attackers and bad luck make them.
fn name() -> impl Strategy<Value = String> {
    let near = prop_oneof![
        Just("\u{212a}"),
        Just("\u{130}"),
        Just("\u{131}"),
        Just("\u{ff41}"),
        Just("K"),
        Just("k"),
        Just("a"),
        Just("A"),
        Just("-"),
        Just("--"),
        Just("x"),
        Just("/"),
        Just("."),
        Just("%2F"),
        Just("%"),
        Just(" "),
        Just(","),
        Just("&x=2"),
        Just("?root=/e"),
        Just("#"),
        Just("{b}"),
        Just("zqx0q1q"),
    ];
    prop_oneof![
        4 => proptest::collection::vec(near, 0..4).prop_map(|parts| parts.concat()),
        2 => "[a-c.-]{1,4}",
        1 => "[ -~]{0,6}",
        1 => any::<String>(),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        cases,
        ..ProptestConfig::default()
    }
}

#[test]
fn accepted_names_are_confined_and_exact() {
    let registry = registry();
    let templates = TEMPLATES.map(|text| (template(text), template(text).parsed.legs.clone()));
    proptest!(config(2000), |(which in 0..TEMPLATES.len(), a in name(), b in name())| {
        let (template, legs) = &templates[which];
        let values: Vec<_> = [("a", a.as_str()), ("b", b.as_str())]
            .into_iter()
            .filter(|(k, _)| template.variables().any(|v| v == *k))
            .collect();
        if let Ok(destination) = template.destination(values.iter().copied()) {
            prop_assert_eq!(destination.locations().len(), 1);
            let uri = destination.locations()[0].uri();
            let again: LocationUri = uri.to_string().parse().unwrap();
            prop_assert_eq!(&again, uri);
            let printed = registry.destination(&destination.to_string()).ok();
            prop_assert_eq!(printed.as_ref(), Some(&destination));
            // The same components as in the template, and nothing but the names in the holes.
            let given: Vec<&str> = values.iter().map(|v| v.1).collect();
            let marker = Marker::absent_from("");
            let written = |text: &str| {
                let mut marked = text.to_owned();
                for (i, (k, _)) in values.iter().enumerate() {
                    marked = marked.replace(&format!("{{{k}}}"), &marker.of(i));
                }
                marked.parse::<LocationUri>().unwrap()
            };
            let skeleton = written(TEMPLATES[which]);
            let filled = |text: &str| marker.pattern(text).fill(|v| given[v]);
            prop_assert_eq!(again.scheme(), skeleton.scheme());
            prop_assert_eq!(again.authority().map(str::to_owned), skeleton.authority().map(filled));
            prop_assert_eq!(again.path(), filled(skeleton.path()));
            let pairs: Vec<_> = again.query_pairs().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let expected: Vec<_> = skeleton
                .query_pairs()
                .map(|(k, v)| (k.to_owned(), filled(v)))
                .collect();
            prop_assert_eq!(pairs, expected);
            prop_assert_eq!(legs.len(), 1);
        }
    });
}

#[test]
fn two_names_never_give_one_place() {
    let templates = TEMPLATES.map(template);
    proptest!(config(400), |(
        which in 0..TEMPLATES.len(),
        names in proptest::collection::vec((name(), name()), 2..40),
    )| {
        let template = &templates[which];
        let both = template.variables().count() == 2;
        let mut places: HashMap<String, (String, String)> = HashMap::new();
        for (a, b) in names {
            let b = if both { b } else { String::new() };
            let values = [("a", a.as_str()), ("b", b.as_str())];
            let Ok(destination) = template.destination(values.into_iter().take(1 + usize::from(both)))
            else {
                continue;
            };
            let place = destination.to_string();
            // Everything but these two may fold case.
            let place = match place.starts_with("memory:") || place.starts_with("exact:") {
                true => place,
                false => place.to_lowercase(),
            };
            if let Some(other) = places.insert(place.clone(), (a.clone(), b.clone())) {
                prop_assert_eq!(other, (a, b), "both give {}", place);
            }
        }
    });
}
