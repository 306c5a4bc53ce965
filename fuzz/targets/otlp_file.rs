#![no_main]
//! A file of captured traces: no panic, an end, and only spans that survive encoding.
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use trace_destination_otlp::OtlpFile;

mod round_trip;

fuzz_target!(|bytes: &[u8]| {
    for name in ["fuzz.jsonl", "fuzz.binpb"] {
        let Ok(file) = OtlpFile::from_reader(Cursor::new(bytes.to_vec()), name) else {
            continue;
        };
        let items: Vec<_> = file.collect();
        assert!(items.len() <= bytes.len());
        round_trip::check(items.into_iter().flatten().flatten().collect());
    }
});
