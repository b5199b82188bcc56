//! What holds of a request, whatever its body or its query is.

use axum::{extract::Query, http::Uri};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    api::{Address, Adopt, Allocate, EventsAfter, Lift, Pause, Release, StreamAfter, TableFilter},
    encoded,
    view::Invalid,
};

/// Of a body or a query: it is understood or refused with words, what is understood reads the same when it is written
/// again, and any text at all can be a parameter's value.
pub fn api(bytes: &[u8]) {
    body(bytes, Allocate::wish);
    body(bytes, Adopt::named);
    body(bytes, Release::named);
    body(bytes, Lift::named);
    body(bytes, Pause::asked);
    let text = String::from_utf8_lossy(bytes);
    query(&text, |address: Address| address.named());
    query(&text, |filter: TableFilter| filter.domain());
    query(&text, EventsAfter::asked);
    query(&text, StreamAfter::place);
    let bridge: Option<TableFilter> = asked(&format!("bridge={}", encoded(&text)));
    assert_eq!(bridge.and_then(|filter| filter.bridge).as_deref(), Some(&*text));
}

fn body<T: Request, U>(bytes: &[u8], understood: impl Fn(T) -> Result<U, Invalid>) {
    let Ok(request) = serde_json::from_slice::<T>(bytes) else { return };
    let again = serde_json::to_vec(&request).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    assert_eq!(again.as_ref(), Some(&request));
    understood_or_told(understood(request));
}

fn query<T: Request, U>(text: &str, understood: impl Fn(T) -> Result<U, Invalid>) {
    if let Some(request) = asked(text) {
        understood_or_told(understood(request));
    }
}

fn asked<T: DeserializeOwned>(query: &str) -> Option<T> {
    let uri: Uri = format!("/api/v1/x?{query}").parse().ok()?;
    Query::try_from_uri(&uri).ok().map(|Query(asked)| asked)
}

fn understood_or_told<U>(outcome: Result<U, Invalid>) {
    assert!(outcome.err().is_none_or(|invalid| !invalid.to_string().is_empty()));
}

trait Request: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug {}

impl<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug> Request for T {}
