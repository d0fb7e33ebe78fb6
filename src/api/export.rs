//! `GET /v1/executions:export`: executions as lines of JSON, as many as there are.
//!
//! The answer is made as fast as the client takes it: a page of rows at a time, and of their outputs as many at
//! once as fit into a chunk.
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
/// A chunk of lines is sent once it has this size, in bytes; the last lines may make it larger.
const CHUNK_BYTES: usize = 128 * 1024;

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
            }
            let some = self.take_some();
            for record in self.complete(some).await? {
                wire::put_line(&mut lines, &record, self.query.outputs);
            }
        }
        Ok(lines.freeze())
    }

    /// The next executions of the page: as many as have outputs that fit into a chunk, but one at least.
    fn take_some(&mut self) -> Vec<ExecutionRecord> {
        let (mut bytes, mut count) = (0_u64, 0);
        for record in &self.page {
            bytes = bytes.saturating_add(record.output_bytes.unwrap_or(0));
            if count > 0 && bytes > CHUNK_BYTES as u64 {
                break;
            }
            count += 1;
        }
        self.page.drain(..count).collect()
    }

    /// The same with their outputs, if these are asked for: as they stand by now. One that was forgotten meanwhile
    /// is shown as it was listed.
    async fn complete(
        &self,
        mut records: Vec<ExecutionRecord>,
    ) -> Result<Vec<ExecutionRecord>, CallError> {
        if self.query.outputs == Outputs::LeftOut {
            return Ok(records);
        }
        let with_output = records
            .iter()
            .filter(|record| record.output_bytes.is_some());
        let ids: Vec<_> = with_output.map(|record| record.id).collect();
        let whole = self.state.scheduler.executions_of(&ids).await?;
        let mut whole = whole.into_iter().peekable();
        for record in &mut records {
            if let Some(whole) = whole.next_if(|whole| whole.id == record.id) {
                *record = whole;
            }
        }
        Ok(records)
    }
}
