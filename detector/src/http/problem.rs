//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::{Unexplained, api::Problem, view::Invalid};
use crate::{
    agent::{AskError, NotLifted},
    allocator::{AdoptError, AllocateError, StoreError},
};

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl ToString) -> Self {
        let title = status.canonical_reason().unwrap_or_default().to_owned();
        Self { title, status: status.as_u16(), detail: detail.to_string(), ready_in_ms: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let status = match &error {
            AskError::Stopping
            | AskError::NotReady
            | AskError::Store(StoreError::Unopened(_))
            | AskError::Allocate(AllocateError::Unwitnessed(..) | AllocateError::Store(StoreError::Unopened(_)))
            | AskError::Adopt(AdoptError::Store(StoreError::Unopened(_))) => StatusCode::SERVICE_UNAVAILABLE,
            AskError::Allocate(AllocateError::NoPool(_) | AllocateError::NotInPool { .. })
            | AskError::Adopt(AdoptError::NotInPool { .. }) => StatusCode::NOT_FOUND,
            AskError::Allocate(
                AllocateError::Exhausted { .. }
                | AllocateError::HoldsUseless(_)
                | AllocateError::HoldsAnother(_)
                | AllocateError::Leased(_),
            )
            | AskError::Adopt(AdoptError::Leased(_) | AdoptError::HoldsAnother(_))
            | AskError::NotLifted(NotLifted::NotContained(_) | NotLifted::Several(_)) => StatusCode::CONFLICT,
            AskError::Store(_)
            | AskError::Allocate(AllocateError::Store(_))
            | AskError::Adopt(AdoptError::Store(_))
            | AskError::NotLifted(NotLifted::Stays(_))
            | AskError::Metrics(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { ready_in_ms: ready_in_ms(&error), ..Self::new(status, error) }
    }
}

fn ready_in_ms(error: &AskError) -> Option<u64> {
    match error {
        AskError::Allocate(AllocateError::Exhausted { ready_in, .. }) => {
            ready_in.map(|span| span.as_nanos().div_ceil(1_000_000))
        }
        _ => None,
    }
}

impl From<Unexplained> for Problem {
    fn from(error: Unexplained) -> Self {
        match error {
            Unexplained::NotThere { .. } => Self::new(StatusCode::NOT_FOUND, error),
            Unexplained::Unreadable { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error),
            Unexplained::Store(error) => AskError::from(error).into(),
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, invalid)
    }
}
