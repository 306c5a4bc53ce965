#![no_main]
//! The root of a lakehouse, and beneath it options of its store, `name=value` a line: what is taken is
//! a fixed point, and the value of an option is never shown.
use libfuzzer_sys::fuzz_target;
use trace_destination_core::{Error, LocationUri};
use trace_destination_unity_catalog::{CatalogServer, StorageOptions, UnityCatalogLocation};

mod error_text;
use error_text::SECRET;

fn location(root: &str, options: &StorageOptions) -> Result<LocationUri, Error> {
    let built = UnityCatalogLocation::builder()
        .with_name("a.b.c")
        .with_root(root)
        .with_storage(options.clone())
        .build()?;
    Ok(trace_destination_core::TraceLocation::uri(&built).clone())
}

fuzz_target!(|input: &str| {
    let (root, lines) = input.split_once('\n').unwrap_or((input, ""));
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let options = pairs
        .clone()
        .fold(StorageOptions::new(), |options, (name, value)| {
            options.with_option(name, value)
        });
    // Names are folded; what is given as a name is shown as one.
    let names_it = |text: &str| text.to_ascii_lowercase().contains(SECRET);
    let hidden = !names_it(root) && pairs.clone().all(|(name, _)| !names_it(name));
    let secrets: &[&str] = if hidden { &[SECRET] } else { &[] };
    assert!(!hidden || !format!("{options:?}").contains(SECRET));
    match location(root, &options) {
        Ok(uri) => {
            let (_, shown) = uri
                .query_pairs()
                .find(|(key, _)| *key == "root")
                .expect("a root");
            assert_eq!(location(shown, &options).expect("it is taken again"), uri);
            let again: LocationUri = uri.to_string().parse().expect("a URI");
            assert_eq!(again, uri);
            let again = UnityCatalogLocation::builder()
                .with_uri(&again)
                .with_storage(options)
                .build();
            let again = again.expect("a location is made as it prints");
            assert_eq!(*trace_destination_core::TraceLocation::uri(&again), uri);
        }
        Err(error) => error_text::check_own(&error, secrets),
    }
    if let Ok(server) = CatalogServer::new(root) {
        let again = CatalogServer::new(server.address()).expect("an address is taken again");
        assert_eq!(again.address(), server.address());
        if let Err(error) = server.with_storage_root(lines) {
            error_text::check_own(&error, &[]);
        }
    }
});
