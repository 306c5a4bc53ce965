#![no_main]
//! What a server of OAuth tokens answers, and what comes after a token of any kind: neither the
//! client's secret nor the token is shown, in no form.
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use trace_destination_server::{Credentials, OAuthClient, ServerLocation};

mod dialogue;
use dialogue::error_text::SECRET;

/// The token of an answer that has one which cannot be mistaken for words.
fn token(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let token = answer["access_token"].as_str()?.trim();
    token.contains("hunter22").then(|| token.to_owned())
}

fuzz_target!(|bytes: &[u8]| {
    let replies = dialogue::replies(bytes);
    let tokens: Vec<String> = replies
        .iter()
        .filter(|reply| (200..300).contains(&reply.status))
        .filter_map(|reply| token(&reply.body))
        .collect();
    // Where another answer repeats a token before it is given out, nobody can tell that it is one.
    let first = token(&replies[0].body);
    let mut secrets = vec![SECRET];
    if tokens.len() == 1 && first.as_deref() == tokens.first().map(String::as_str) {
        secrets.push(&tokens[0]);
    }
    dialogue::answer_with(replies);
    let client = OAuthClient::new(
        "id",
        SECRET,
        "http://127.0.0.1:9/token?key=hunter22-hunter22",
    );
    let location = ServerLocation::builder()
        .with_uri(&"otlp+http://127.0.0.1:9".parse().expect("a URI"))
        .with_credentials(Credentials::oauth(client.with_scope("all")))
        .build()
        .expect("a location");
    dialogue::hold(&location, &secrets);
});
