//! Calls `wasi:http/incoming-handler@0.2`.
//!
//! **Invariant:** the guest's answer goes to the [`Reply`] in the moment in which the guest gives it.

use std::sync::Arc;

use http::Request;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use super::reply::Reply;
use crate::runtime::host::Ctx;

/// One call in a fresh instance, see [`call_in`].
pub(super) async fn call(
    code: &ProxyPre<Ctx>,
    store: &mut Store<Ctx>,
    request: Request<WasiBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let proxy = instantiate(code, store).await?;
    call_in(&proxy, store, request, reply).await
}

/// A fresh instance.
pub(super) async fn instantiate(
    code: &ProxyPre<Ctx>,
    store: &mut Store<Ctx>,
) -> wasmtime::Result<Proxy> {
    let proxy = code.instantiate_async(&mut *store).await?;
    store.data_mut().instantiated = true;
    Ok(proxy)
}

/// One call. Returns when the guest does, which may be after its answer.
pub(super) async fn call_in(
    proxy: &Proxy,
    store: &mut Store<Ctx>,
    request: Request<WasiBody>,
    reply: &Arc<Reply>,
) -> wasmtime::Result<()> {
    let ctx = store.data_mut();
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        Some(_) | None => Scheme::Http,
    };
    let request = ctx.http().new_incoming_request(scheme, request)?;
    let answering = Arc::clone(reply);
    let out = ctx
        .http()
        .new_response_outparam_from_callback(move |answer| match answer {
            Ok(response) => answering.answer(response),
            Err(code) => answering.refuse(&code.to_string()),
        })?;
    let handler = proxy.wasi_http_incoming_handler();
    handler.call_handle(store, request, out).await
}
