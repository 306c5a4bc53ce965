#![no_main]
//! What an OTLP endpoint answers, such as a partial success in protobuf or JSON.
use libfuzzer_sys::fuzz_target;
use trace_destination_server::{Compression, Credentials, ServerLocation};

mod dialogue;
use dialogue::error_text::SECRET;

fuzz_target!(|bytes: &[u8]| {
    dialogue::answer_with(dialogue::replies(bytes));
    let location = ServerLocation::builder()
        .with_uri(&"otlp+http://127.0.0.1:9".parse().expect("a URI"))
        .with_credentials(Credentials::bearer(SECRET))
        .with_compression(Compression::None)
        .build()
        .expect("a location");
    dialogue::hold(&location, &[SECRET]);
});
