//! Who may join whom. What becomes of calls in an instance is tested with guests, in `tests/it/reuse_at_once.rs`.
//!
//! **Invariant:** no guest runs here.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, poll};

use super::list::Joined;
use super::*;
use crate::execution::Outcome;
use crate::model::{
    Code, Digest, ExecutionId, Exposure, Fence, Input, JSON, LogStream, SecretValue, Shape,
    Timestamp, VersionNumber, VersionSpec,
};
use crate::net::Client;
use crate::runtime::limits::Denial;
use crate::runtime::watch::{Reins, Watch};
use crate::runtime::web;

fn version() -> Arc<Version> {
    Arc::new(Version {
        number: VersionNumber(1),
        code: Code::Wasm {
            digest: Digest::from_bytes([0; 32]),
            shape: Shape::Http03,
            size: 1,
        },
        spec: VersionSpec::default(),
        created_at: Timestamp(0),
    })
}

fn attempt(version: &Arc<Version>, secret: Option<&str>) -> Attempt {
    let secrets = secret.map(|value| OpenSecret {
        key: "KEY".into(),
        exposure: Exposure::Env,
        value: SecretValue::new(value.to_owned()),
    });
    Attempt {
        execution_id: ExecutionId::new(Timestamp(0)),
        function: "f".parse().unwrap(),
        version: Arc::clone(version),
        number: 1,
        max_attempts: 1,
        requeues: 0,
        faults: 0,
        fence: Fence::new(1, 1),
        time_limit: Duration::from_secs(1),
        idempotency_key: None,
        trace_id: None,
        traceparent: None,
        metadata: Arc::default(),
        input: Input {
            content_type: JSON,
            body: "1".into(),
        },
        secrets: secrets.into_iter().collect(),
    }
}

/// A seat among others, or the first one, in an instance that may be given three calls.
fn seated(crowds: &Crowds, attempt: Attempt, is_wanted: bool) -> (bool, Seat, Option<Arc<Crowd>>) {
    let (request, conversation) = Conversation::begin(&attempt, None).ok().unwrap();
    let call = Call::new(attempt, conversation);
    match crowds.join(call, request, 2, is_wanted, || ((), 3)) {
        Ok(Joined::Others(seat)) => (true, seat, None),
        Ok(Joined::First(seat, crowd, ())) => (false, seat, Some(crowd)),
        Err(_) => panic!("an instance has room for one"),
    }
}

#[test]
fn a_call_joins_those_of_its_own_version_with_its_own_secrets() {
    let crowds = Crowds::default();
    let mine = version();
    let (joined, _first, _) = seated(&crowds, attempt(&mine, Some("one")), false);
    assert!(!joined);
    // The same number, and yet another version.
    let (joined, _other, _) = seated(&crowds, attempt(&version(), Some("one")), false);
    assert!(!joined);
    for other in [Some("two"), None] {
        let (joined, _, _) = seated(&crowds, attempt(&mine, other), false);
        assert!(!joined, "{other:?}");
    }
    let (joined, _second, _) = seated(&crowds, attempt(&mine, Some("one")), false);
    assert!(joined);
    let (joined, _third, _) = seated(&crowds, attempt(&mine, Some("one")), false);
    assert!(!joined, "there is room for two");
}

#[test]
fn a_call_that_leaves_before_it_began_leaves_its_place_to_another() {
    let crowds = Crowds::default();
    let mine = version();
    let (_, first, crowd) = seated(&crowds, attempt(&mine, None), false);
    let crowd = crowd.unwrap();
    let (_, second, _) = seated(&crowds, attempt(&mine, None), false);
    drop(second);
    let (joined, second, _) = seated(&crowds, attempt(&mine, None), false);
    assert!(joined && crowd.is_in_order());
    assert_eq!(crowd.calls_left(), 1);
    drop((first, second));
    assert!(crowd.is_deserted());
    let (joined, _next, _) = seated(&crowds, attempt(&mine, None), false);
    assert!(!joined, "nobody is there to take it in");
}

#[test]
fn nobody_comes_in_after_a_call_was_ended_or_the_function_changed_or_where_a_place_is_wanted() {
    let crowds = Crowds::default();
    let mine = version();
    let joins = |is_wanted| seated(&crowds, attempt(&mine, None), is_wanted).0;
    let (_, first, crowd) = seated(&crowds, attempt(&mine, None), false);
    let crowd = crowd.unwrap();
    assert!(joins(true), "it has no place yet itself");
    crowd.begin(Capture::logs_only(1));
    assert_eq!(crowd.arrived().len(), 1);
    assert!(!joins(true));
    crowds.retire(&"f".parse().unwrap());
    let (_, second, fresh) = seated(&crowds, attempt(&mine, None), false);
    let fresh = fresh.unwrap();
    assert!(joins(false));
    fresh.begin(Capture::logs_only(1));
    assert_eq!(fresh.arrived().len(), 1);
    drop(second);
    assert!(!fresh.is_in_order());
    assert!(!joins(false));
    drop(first);
}

#[tokio::test]
async fn whoever_is_in_it_is_told_even_if_its_keeper_is_gone() {
    let crowds = Crowds::default();
    let (_, seat, crowd) = seated(&crowds, attempt(&version(), None), false);
    drop(crowd.unwrap().take_all());
    let ran = seat
        .outcome(&tokio_util::sync::CancellationToken::new())
        .await;
    assert!(matches!(ran.outcome, Outcome::Fault(_)));
}

#[tokio::test]
async fn cpu_time_is_the_call_s_that_is_alone_and_divided_among_several() {
    let crowds = Crowds::default();
    let spec = VersionSpec {
        cpu_ms: Some(100),
        ..VersionSpec::default()
    };
    let mine = Arc::new(Version {
        spec,
        ..Version::clone(&version())
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let (_, first, crowd) = seated(&crowds, attempt(&mine, None), false);
    let crowd = crowd.unwrap();
    crowd.begin(Capture::logs_only(1));
    assert_eq!(crowd.arrived().len(), 1);
    crowd.charge(Duration::from_millis(60), None);
    let (joined, second, _) = seated(&crowds, attempt(&mine, None), false);
    assert!(joined && crowd.arrived().len() == 1);
    crowd.charge(Duration::from_millis(130), None);
    crowd.charge(Duration::from_millis(150), None);
    let ran = first.outcome(&stop).await;
    assert!(matches!(&ran.outcome, Outcome::Limit(failure) if failure.code == "CPU_LIMIT"));
    assert_eq!(ran.cpu, Some(Duration::from_millis(105)));
    stop.cancel();
    let ran = second.outcome(&stop).await;
    assert_eq!(
        (ran.outcome, ran.cpu),
        (Outcome::Interrupted, Some(Duration::from_millis(45)))
    );
}

/// One that computes for long between two epochs, and waits from then on.
#[tokio::test]
async fn an_instance_ends_whose_last_call_had_used_up_its_cpu_time_when_it_began_to_wait() {
    let spec = VersionSpec {
        cpu_ms: Some(1),
        ..VersionSpec::default()
    };
    let mine = Arc::new(Version {
        spec,
        ..Version::clone(&version())
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let crowds = Crowds::default();
    let (_, seat, crowd) = seated(&crowds, attempt(&mine, None), false);
    let crowd = crowd.unwrap();
    crowd.begin(Capture::logs_only(1));
    assert_eq!(crowd.arrived().len(), 1);
    let reins = Reins {
        stop: &stop,
        lane: &Arc::default(),
        client: &Client::new(Default::default()),
    };
    let watch = Watch::endless(true, &reins);
    let guest = pin!(std::future::poll_fn(|_| {
        while watch.cpu() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        Poll::Pending
    }));
    let driven = pin!(web::drive(guest, &crowd, &watch));
    // It is asked again only if somebody wakes it.
    let mut living = FuturesUnordered::from_iter([watch.live(driven)]);
    let mut lived = poll!(living.next());
    if lived.is_pending() {
        lived = poll!(living.next());
    }
    assert!(
        matches!(lived, Poll::Ready(Some(Ok(Ok(()))))),
        "nobody is in it"
    );
    let ran = seat.outcome(&stop).await;
    assert!(matches!(&ran.outcome, Outcome::Limit(failure) if failure.code == "CPU_LIMIT"));
}

#[test]
fn a_message_quotes_nothing_that_another_call_may_have_written() {
    let instance = Capture::logs_only(1000);
    let calls = [Capture::logs_only(1000), Capture::logs_only(1000)];
    let write = |line: &str| {
        let mut stream = instance.stream(LogStream::Stderr);
        let bytes = line.to_owned().into();
        wasmtime_wasi::p2::OutputStream::write(&mut stream, bytes).unwrap();
    };
    let quoted = |of: &Capture| of.written().last_words(100);
    instance.tell(vec![calls[0].clone()]);
    write("its own\n");
    assert_eq!(quoted(&calls[0]), "its own");
    instance.tell(calls.to_vec());
    write("anybody's\n");
    instance.tell(vec![calls[0].clone()]);
    write("its own again\n");
    assert_eq!(calls.each_ref().map(quoted), ["", ""]);
}

#[test]
fn a_refused_growth_of_memory_is_no_matter_of_who_begins_later_or_outlasts_others() {
    let denied_at = std::time::Instant::now();
    let remains = Remains {
        instantiated: true,
        denial: Some(Denial::Table { wanted: 1 }),
        denied_at: Some(denied_at),
    };
    let earlier = denied_at.checked_sub(Duration::from_nanos(1));
    let later = denied_at.checked_add(Duration::from_nanos(1));
    let concerns = |began, last_left| remains.since(began, last_left).denial.is_some();
    assert!(concerns(None, None) && concerns(earlier, None) && concerns(earlier, earlier));
    assert!(!concerns(later, None), "it was not there yet");
    assert!(!concerns(None, later), "whoever left may have had it");
}

#[tokio::test]
async fn who_begins_after_a_refused_growth_of_memory_traps_by_itself() {
    let crowds = Crowds::default();
    let mine = version();
    let (_, first, crowd) = seated(&crowds, attempt(&mine, None), false);
    let crowd = crowd.unwrap();
    crowd.begin(Capture::logs_only(1));
    assert_eq!(crowd.arrived().len(), 1);
    let denied_at = std::time::Instant::now();
    let (_, second, _) = seated(&crowds, attempt(&mine, None), false);
    assert_eq!(crowd.arrived().len(), 1);
    let remains = Remains {
        instantiated: true,
        denial: Some(Denial::Table { wanted: 1 }),
        denied_at: Some(denied_at),
    };
    crowd.end(
        Err((
            wasmtime::Trap::UnreachableCodeReached.into(),
            Blame::Unknown,
        )),
        remains,
    );
    let stop = tokio_util::sync::CancellationToken::new();
    let ran = first.outcome(&stop).await;
    assert!(matches!(&ran.outcome, Outcome::Limit(failure) if failure.code == "HOST_LIMIT"));
    let ran = second.outcome(&stop).await;
    assert!(matches!(&ran.outcome, Outcome::Retry(failure) if failure.code == "TRAP"));
}
