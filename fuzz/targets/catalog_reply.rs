#![no_main]
//! What a Unity Catalog server answers: where a table is, and credentials for its storage. Nothing
//! of it leads to a file of this machine.
use libfuzzer_sys::fuzz_target;
use trace_destination_unity_catalog::{CatalogServer, MissingTable, UnityCatalogLocation};

mod dialogue;
use dialogue::error_text::SECRET;

fuzz_target!(|bytes: &[u8]| {
    dialogue::answer_with(dialogue::replies(bytes));
    for missing in [MissingTable::Fail, MissingTable::Create] {
        let server = CatalogServer::new("http://127.0.0.1:9").expect("an address");
        let location = UnityCatalogLocation::builder()
            .with_name("a.b.c")
            .with_server(server.with_token(SECRET))
            .with_missing(missing)
            .build()
            .expect("a location");
        dialogue::hold(&location, &[SECRET]);
    }
});
