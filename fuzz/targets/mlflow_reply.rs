#![no_main]
//! What a tracking server answers: an end, errors that are fit to be shown, and no span refused twice.
use libfuzzer_sys::fuzz_target;
use trace_destination_server::{Compression, Credentials, ServerLocation};

mod dialogue;
use dialogue::error_text::SECRET;

fuzz_target!(|bytes: &[u8]| {
    dialogue::answer_with(dialogue::replies(bytes));
    let uri = "http://127.0.0.1:9?experiment_name=n&workspace=w";
    let location = ServerLocation::builder()
        .with_uri(&uri.parse().expect("a URI"))
        .with_credentials(Credentials::basic("user", SECRET))
        .with_compression(Compression::None)
        .build()
        .expect("a location");
    dialogue::hold(&location, &[SECRET]);
});
