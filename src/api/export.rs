//! `GET /v1/executions:export`: executions as lines of JSON, as many as there are.
//!
//! The answer is made as fast as the client takes it: a page of rows at a time, their outputs one by one.
//!
//! **Invariant:** an export holds one page and one chunk of lines, however many it sends; nothing of the
//! store is held while it waits for its client; one that breaks off never looks like one that ended.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Uri};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::error::Error;
use super::wire::{self, ExportQuery, Outputs};
use super::{Shared, State};
use crate::scheduler::CallError;
use crate::store::ExecutionRecord;

/// Rows read at once.
const PAGE: u32 = 100;
/// A chunk of lines is sent once it has this size, in bytes; the last line may make it larger.
const CHUNK_BYTES: usize = 64 * 1024;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// `GET /v1/executions:export`
pub(super) async fn export(state: Shared, uri: Uri) -> Result<Response, Error> {
    let query = ExportQuery::parse(&uri)?;
    let place = Arc::clone(&state.exports).try_acquire_owned();
    let place = place.map_err(|_| Error::exports_busy(state.options.exports_max))?;
    let mut export = Export {
        state: Arc::clone(&state),
        query,
        page: VecDeque::new(),
        is_last_page: false,
        _place: place,
    };
    // What can be told by a status is told before the first line.
    export.read_page().await?;
    let lines = stream::unfold(Some(export), |export| async {
        let mut export = export?;
        match export.next_lines().await {
            Ok(lines) if lines.is_empty() => None,
            Ok(lines) => Some((Ok(lines), Some(export))),
            Err(error) => {
                tracing::error!(%error, "an export broke off");
                Some((Err(io::Error::other("the export broke off")), None))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    Ok(response)
}

/// An export under way.
struct Export {
    state: Arc<State>,
    /// Its filter goes on from page to page.
    query: ExportQuery,
    page: VecDeque<ExecutionRecord>,
    is_last_page: bool,
    _place: OwnedSemaphorePermit,
}

impl Export {
    async fn read_page(&mut self) -> Result<(), CallError> {
        let filter = &mut self.query.filter;
        let page = self.state.scheduler.executions(filter, PAGE).await?;
        self.is_last_page = page.len() < PAGE as usize;
        if let Some(last) = page.last() {
            filter.before = Some(last.id);
        }
        self.page = page.into();
        Ok(())
    }

    /// The next chunk; empty at the end.
    async fn next_lines(&mut self) -> Result<Bytes, CallError> {
        let mut lines = BytesMut::new();
        while lines.len() < CHUNK_BYTES {
            if self.page.is_empty() {
                if self.is_last_page {
                    break;
                }
                self.read_page().await?;
                continue;
            }
            let Some(record) = self.page.pop_front() else {
                break;
            };
            self.put(&mut lines, record).await?;
        }
        Ok(lines.freeze())
    }

    async fn put(&self, lines: &mut BytesMut, record: ExecutionRecord) -> Result<(), CallError> {
        let outputs = self.query.outputs;
        if outputs == Outputs::Shown && record.output_bytes.is_some() {
            // As it stands by now; one that was forgotten meanwhile is shown as it was listed.
            let whole = self.state.scheduler.execution(record.id).await?;
            wire::put_line(lines, whole.as_deref().unwrap_or(&record), outputs);
        } else {
            wire::put_line(lines, &record, outputs);
        }
        Ok(())
    }
}
