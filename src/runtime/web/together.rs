//! Drives an instance of `wasi:http/handler@0.3` that has several calls in it.
//!
//! **Invariant:** the store is driven only while somebody is in it; what each caller gets is as if it had been alone.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream as _};
use wasmtime::component::{Accessor, GuestTaskId};
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{WasiHttpView as _, p3};

use super::http03;
use super::nudge::Nudge;
use super::{ASKED_AGAIN_MAX, Conversation, Gathered, Request, YIELDS_MAX};
use crate::execution::Attempt;
use crate::runtime::crowd::{Blame, Call, Crowd, Remains};
use crate::runtime::ending::{Ending, Failed};
use crate::runtime::host::Ctx;
use crate::runtime::output::Capture;
use crate::runtime::reuse::Kept;
use crate::runtime::run::{Life, usize_of};
use crate::runtime::watch::{Reins, Watch};

/// What it came to that an instance had calls in it.
pub(in crate::runtime) struct Attended {
    /// Why it ended, and whose that is; nothing if all were answered, or nobody was left.
    pub(in crate::runtime) result: Result<(), (wasmtime::Error, Blame)>,
    pub(in crate::runtime) remains: Remains,
    /// The instance, if it may answer other calls.
    pub(in crate::runtime) kept: Option<Kept<Service>>,
}

/// Serves the calls of a crowd, in the instance that is kept or in a fresh one, until nobody is in it. `first` is one of
/// them.
pub(in crate::runtime) async fn attend(
    code: &ServicePre<Ctx>,
    kept: Option<Kept<Service>>,
    crowd: &Arc<Crowd>,
    first: &Attempt,
    reins: &Reins<'_>,
) -> Attended {
    let watch = Arc::new(Watch::endless(first.version.spec.cpu_ms.is_some(), reins));
    let (mut life, service) = match kept {
        Some(Kept {
            store,
            capture,
            guest,
        }) => (
            Life::resume_under(watch, store, capture, first),
            Some(guest),
        ),
        None => {
            let capture = Capture::logs_only(usize_of(first.version.spec.log_bytes_max));
            let engine = code.engine();
            let life = Life::begin_under(watch, engine, first, reins, Bytes::new(), capture);
            (life, None)
        }
    };
    life.store.data_mut().crowd = Some(Arc::clone(crowd));
    look_up_at_epochs(&mut life.store);
    crowd.begin(life.capture.clone());
    let mut done = None;
    let lived = {
        let guest = pin!(async {
            let service = match service {
                Some(service) => service,
                None => http03::instantiate(code, &mut life.store).await?,
            };
            let answering = life
                .store
                .run_concurrent(async |accessor| answer_all(accessor, &service, crowd).await);
            answering.await??;
            done = Some(service);
            Ok(())
        });
        let driven = pin!(drive(guest, crowd, &life.watch));
        life.watch.live(driven).await
    };
    let blame = crowd.blame(task_of(&mut life.store));
    let denied_at = life.store.data().memory.denied_at();
    life.store.data_mut().crowd = None;
    life.capture.tell(Vec::new());
    let (ending, kept) = match (lived, done) {
        (Ok(Ok(())), Some(service)) if crowd.is_in_order() => {
            let (ending, kept) = life.pause(());
            (ending, Kept::of(kept, service))
        }
        (lived, _) => (life.end(lived), None),
    };
    attended(ending, denied_at, blame, kept)
}

fn attended(
    ending: Ending<()>,
    denied_at: Option<Instant>,
    blame: Blame,
    kept: Option<Kept<Service>>,
) -> Attended {
    let remains = Remains {
        instantiated: ending.instantiated,
        denial: ending.denial,
        denied_at,
    };
    let result = match ending.result {
        Ok(()) => Ok(()),
        Err(Failed::Error(error)) => Err((error, blame)),
        // Nothing else cuts an instance that several are in.
        Err(Failed::Cut(_) | Failed::Shared(_) | Failed::Bystander(_)) => {
            Err((wasmtime::Error::msg("the instance was cut"), blame))
        }
    };
    Attended {
        result,
        remains,
        kept,
    }
}

/// The task that the guest was called for in the first place and that runs now, or ran when it trapped.
fn task_of(mut store: impl AsContextMut) -> Option<GuestTaskId> {
    store.as_context_mut().async_call_stack().ok()?.last()
}

fn look_up_at_epochs(store: &mut Store<Ctx>) {
    store.epoch_deadline_callback(|mut store| {
        let task = task_of(&mut store);
        let ctx = store.data();
        if let Some(crowd) = &ctx.crowd {
            crowd.charge(ctx.watch.cpu(), task);
            if crowd.must_end(task) {
                return Ok(wasmtime::UpdateDeadline::Interrupt);
            }
        }
        Ok(ctx.watch.tick())
    });
}

/// Gives the guest each call that comes, until all are answered and nothing of the guest runs any more.
async fn answer_all(
    accessor: &Accessor<Ctx>,
    service: &Service,
    crowd: &Crowd,
) -> wasmtime::Result<()> {
    let mut answering = pin!(FuturesUnordered::new());
    poll_fn(|cx| {
        crowd.listen(cx);
        loop {
            for (id, call, request, is_alone) in crowd.arrived() {
                let begun = begin(accessor, service, &call.attempt, request, is_alone);
                let begun = begun.inspect_err(|_| crowd.accuse(id))?;
                crowd.began(id, begun.task());
                answering.push(async move {
                    let answered = answer(accessor, service, &call, begun).await;
                    (id, answered)
                });
            }
            match answering.as_mut().poll_next(cx) {
                Poll::Ready(Some((id, answered))) => {
                    answered.inspect_err(|_| crowd.accuse(id))?;
                    crowd.answering(id);
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        crowd.poll_ended(cx);
        if !crowd.is_answered() {
            return Poll::Pending;
        }
        let is_over = crowd.is_abandoned() || accessor.poll_no_interesting_tasks(cx).is_ready();
        match is_over && crowd.close_if_answered() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

/// A call that the guest has been given.
type Begun = wasmtime::component::TypedFuncCallConcurrent<
    Ctx,
    (wasmtime::component::Resource<p3::Request>,),
    (Result<wasmtime::component::Resource<p3::Response>, p3::bindings::http::types::ErrorCode>,),
>;

fn begin(
    accessor: &Accessor<Ctx>,
    service: &Service,
    attempt: &Attempt,
    request: Request,
    is_alone: bool,
) -> wasmtime::Result<Begun> {
    accessor.with(|mut store| {
        let ctx = store.data_mut();
        ctx.join(attempt, is_alone);
        let (request, _processed) = p3::Request::from_http(ctx.http().hooks, request);
        let request = ctx.http().table.push(request)?;
        let handle = service.wasi_http_handler().func_handle();
        handle.start_call_concurrent(store, (request,))
    })
}

async fn answer(
    accessor: &Accessor<Ctx>,
    service: &Service,
    call: &Call,
    begun: Begun,
) -> wasmtime::Result<()> {
    let handle = service.wasi_http_handler().func_handle();
    let (answered,) = handle.finish_call_concurrent(accessor, begun).await?;
    let reply = &call.conversation.reply;
    match answered {
        Ok(response) => {
            let response = accessor.with(|mut store| {
                let response = store.data_mut().http().table.delete(response)?;
                response.into_http(store, async { Ok(()) })
            })?;
            reply.answer(response);
        }
        Err(code) => reply.refuse(&code.to_string()),
    }
    Ok(())
}

/// Runs the guest, and takes what it answers for each call as it comes. Ends early when nobody is left.
pub(in crate::runtime) async fn drive(
    mut guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
    crowd: &Crowd,
    watch: &Watch,
) -> wasmtime::Result<()> {
    let nudge = Nudge::new();
    let nudged = Waker::from(Arc::clone(&nudge));
    let mut yields = 0;
    poll_fn(|cx| {
        let mut asked_again = 0;
        loop {
            if crowd.is_deserted() {
                return Poll::Ready(Ok(()));
            }
            crowd.listen(cx);
            nudge.listen(cx);
            let polled = guest.as_mut().poll(&mut Context::from_waker(&nudged));
            crowd.charge(watch.cpu(), None);
            if let Poll::Ready(result) = polled {
                // While the store lives: what a body's end means can be told only then.
                crowd.guest_ended(cx, result.is_ok());
                return Poll::Ready(result);
            }
            if crowd.gather(cx) {
                continue;
            }
            if nudge.was_woken() && asked_again < ASKED_AGAIN_MAX {
                asked_again += 1;
                continue;
            }
            if watch.has_yielded() {
                yields += 1;
                if yields <= YIELDS_MAX {
                    return Poll::Pending;
                }
            } else {
                yields = 0;
                watch.rest();
            }
            if crowd.hand_over() {
                continue;
            }
            crowd.release();
            return Poll::Pending;
        }
    })
    .await
}

/// What of a conversation the crowd asks for.
impl Conversation {
    /// Takes what there is of the body; see [`super::reply::Reply::gather`].
    pub(in crate::runtime) fn gather(&self, cx: &mut Context<'_>) -> Gathered {
        self.reply.gather(cx)
    }

    /// Whether the answer is complete, or nobody wants the rest.
    pub(in crate::runtime) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_ended(cx)
    }

    /// Whether its guest may be asked again.
    pub(in crate::runtime) fn is_in_order(&self) -> bool {
        self.reply.is_in_order()
    }

    /// The guest has returned, or trapped, and its store still lives.
    pub(in crate::runtime) fn guest_ended(&self, cx: &mut Context<'_>, returned: bool) {
        self.reply.guest_ended(cx, returned);
    }

    /// Nothing more will come.
    pub(in crate::runtime) fn guest_cut(&self) {
        self.reply.guest_cut();
    }

    /// Nobody wants the rest.
    pub(in crate::runtime) fn caller_gone(&self) {
        self.reply.caller_gone();
    }
}
