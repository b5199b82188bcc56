//! Answers that are a whole book: the live table with every lease, all leases, all incidents. Each is in memory until its
//! reader has taken it, so they are few at a time, on all sockets together.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, RequestPartsExt as _,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{api::Problem, crowd::Seat};

/// Such answers at a time.
pub(super) const BOOKS: usize = 4;
/// How long one more waits for its turn. Who reads its answer has it in less.
const PATIENCE: Duration = Duration::from_secs(2);

/// The room for such answers.
#[derive(Clone, Debug)]
pub(super) struct Books(Arc<Semaphore>);

impl Default for Books {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BOOKS)))
    }
}

/// Who wants a whole book.
#[derive(Debug)]
pub(super) struct Reader {
    books: Books,
    seat: Arc<Seat>,
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let lost = |error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let Extension(books) = parts.extract().await.map_err(lost)?;
        let Extension(seat) = parts.extract().await.map_err(lost)?;
        Ok(Self { books, seat })
    }
}

impl Reader {
    /// Waits for its turn, which lasts until its connection ends.
    pub(super) async fn open(self) -> Result<(), Problem> {
        let full = "too many read a whole list already: ask again in a moment";
        let Ok(Ok(permit)) = timeout(PATIENCE, self.books.0.acquire_owned()).await else {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, full));
        };
        self.seat.hold(permit);
        Ok(())
    }
}
