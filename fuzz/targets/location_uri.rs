#![no_main]
//! Text to a location: no panic, and the canonical text is a fixed point.
use libfuzzer_sys::fuzz_target;
use trace_destination_core::LocationUri;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<LocationUri>() {
        let again: LocationUri = uri.to_string().parse().expect("canonical text parses");
        assert_eq!((again.as_str(), &again), (uri.as_str(), &uri));
        let parts =
            LocationUri::from_parts(uri.scheme(), uri.authority(), uri.path(), uri.query_pairs());
        assert_eq!(parts.expect("parts of a URI make a URI"), uri);
    }
});
