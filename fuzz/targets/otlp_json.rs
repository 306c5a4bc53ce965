#![no_main]
//! OTLP/JSON to spans: no panic, and what was decoded survives encoding.
use libfuzzer_sys::fuzz_target;
use trace_destination_otlp::decode_json;

mod round_trip;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(groups) = decode_json(bytes) {
        round_trip::check(groups);
    }
});
