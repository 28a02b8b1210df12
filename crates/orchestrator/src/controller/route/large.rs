//! Large answers for everybody: megabytes that anybody may ask for, without a key. So many are in memory at once and no more,
//! and none for long, however slowly it is read.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{admission::too_many, problem::Result};
use crate::error::Error;

/// How many are in memory at once.
const AT_ONCE: usize = 8;
/// How long one may take from the first byte to the last.
const TIME: Duration = Duration::from_secs(60);
/// Bytes that are handed on at once.
const PIECE: usize = 64 << 10;

/// Places for large answers.
#[derive(Clone)]
pub struct Large {
    places: Arc<Semaphore>,
    time: Duration,
}

impl Default for Large {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), time: TIME }
    }
}

/// One of the places; free again when it is dropped.
pub struct Place {
    permit: OwnedSemaphorePermit,
    time: Duration,
}

impl Large {
    /// A place, to be taken before anything is read.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::RateLimited`] when none is free.
    pub fn place(&self) -> Result<Place> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(too_many(
                "other answers of this size are being read; try again in 1 s".to_owned(),
                1,
            ));
        };
        Ok(Place { permit, time: self.time })
    }
}

impl Place {
    /// The answer, piece by piece; it breaks off when its time is over.
    ///
    /// # Errors
    /// When the answer can't be read.
    pub async fn send(self, answer: Response) -> Result<Response> {
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let Self { permit, time } = self;
        let (mut parts, body) = answer.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.map_err(Error::internal)?;
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        let rest = Arc::new(Mutex::new(Some((bytes, permit))));
        let late = Arc::downgrade(&rest);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(rest) = late.upgrade() {
                rest.lock().take();
            }
        });
        let pieces = std::iter::from_fn(move || next(&mut rest.lock()).transpose());
        Ok(Response::from_parts(parts, Body::from_stream(futures::stream::iter(pieces))))
    }
}

/// The next piece; `None` behind the last one, which gives the place back.
fn next(rest: &mut Option<(Bytes, OwnedSemaphorePermit)>) -> io::Result<Option<Bytes>> {
    let Some((bytes, _)) = rest else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was read too slowly"));
    };
    let piece = bytes.split_to(bytes.len().min(PIECE));
    Ok((!piece.is_empty()).then_some(piece))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn places_are_free_again_when_an_answer_was_read_or_given_up() {
        let large = Large { places: Arc::new(Semaphore::new(1)), ..Large::default() };
        let bytes: Vec<u8> = (0..PIECE * 2 + 7).map(|at| at as u8).collect();
        let answer = large.place().unwrap().send(bytes.clone().into_response()).await.unwrap();
        assert!(large.place().is_err(), "it is being sent");
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], bytes.len().to_string());
        assert_eq!(to_bytes(answer.into_body(), usize::MAX).await.unwrap(), bytes);
        let answer = large.place().unwrap().send(bytes.into_response()).await.unwrap();
        drop(answer);
        assert!(large.place().is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_dropped_in_time() {
        let large = Large { places: Arc::new(Semaphore::new(1)), time: Duration::from_millis(50) };
        let answer = large.place().unwrap().send(vec![1; PIECE * 3].into_response()).await.unwrap();
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap().len(), PIECE);
        while large.place().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(body.next().await.unwrap().is_err());
    }
}
