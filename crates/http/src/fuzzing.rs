//! For fuzz targets, and compiled for them only: answers without a server.

use crate::bounded::Answer;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;

/// What a server is to answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names and values; those that no header can have are left out.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

type Server = Box<dyn FnMut(&str, &HeaderMap) -> Reply>;

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// Has every request of this thread answered by `server`, which is given the address and the headers.
pub fn serve(server: impl FnMut(&str, &HeaderMap) -> Reply + 'static) {
    SERVER.set(Some(Box::new(server)));
}

pub(crate) fn answer(url: &str, sent: &HeaderMap, limit: usize) -> Option<Answer> {
    SERVER.with_borrow_mut(|server| {
        let reply = server.as_mut()?(url, sent);
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.append(name, value);
            }
        }
        let mut body = reply.body;
        let is_cut = body.len() > limit;
        body.truncate(limit);
        Some(Answer {
            status: reply.status,
            headers,
            body: Bytes::from(body),
            is_cut,
        })
    })
}
