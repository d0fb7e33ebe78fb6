//! Calls `wasi:http/handler@0.3`.
//!
//! **Invariant:** the store's event loop runs until the answer's body has ended and no task of the guest is
//! left, for it is what moves them.

use std::future::poll_fn;
use std::sync::Arc;

use http::Request;
use wasmtime::Store;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _, p3};

use super::reply::Reply;
use crate::runtime::host::Ctx;

/// One call in a fresh instance, see [`call_in`].
pub(super) async fn call(
    code: &ServicePre<Ctx>,
    store: &mut Store<Ctx>,
    request: Request<WasiBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let service = instantiate(code, store).await?;
    call_in(&service, store, request, reply).await
}

/// A fresh instance.
pub(super) async fn instantiate(
    code: &ServicePre<Ctx>,
    store: &mut Store<Ctx>,
) -> wasmtime::Result<Service> {
    let service = code.instantiate_async(&mut *store).await?;
    store.data_mut().instantiated = true;
    Ok(service)
}

/// One call. Returns when nothing of the guest runs any more.
pub(super) async fn call_in(
    service: &Service,
    store: &mut Store<Ctx>,
    request: Request<WasiBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let ctx = store.data_mut();
    let (request, _processed) = p3::Request::from_http(ctx.http().hooks, request);
    store
        .run_concurrent(async |accessor| {
            match service.handle(accessor, request).await? {
                Ok(response) => {
                    let response =
                        accessor.with(|store| response.into_http(store, async { Ok(()) }))?;
                    reply.answer(response);
                }
                Err(code) => reply.refuse(&code.to_string()),
            }
            poll_fn(|cx| reply.poll_ended(cx)).await;
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            Ok(())
        })
        .await?
}
