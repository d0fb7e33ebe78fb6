//! The whole transition table, printed: every state in every position that matters × every event.
//!
//! **Invariant:** the snapshot is the meaning; whoever changes it changes what users see.

use std::fmt::Write as _;

use super::{
    ClaimWhen, Completion, Event, Execution, Policy, Rejected, Requeued, State, Stepped, Verdict,
    step,
};
use crate::model::{Failure, Fence, Timestamp};

const NOW: Timestamp = Timestamp(100_000);
const CURRENT: Fence = Fence(7);
const OLDER: Fence = Fence(6);

/// Three attempts, two requeues, two faults, a minute; jitter at its highest shows the ceilings.
const POLICY: Policy = Policy {
    max_attempts: 3,
    base_delay_ms: 100,
    max_delay_ms: 30_000,
    max_requeues: 2,
    max_age_ms: 60_000,
    max_faults: 2,
    function_removed: false,
    is_direct: false,
    jitter: u32::MAX,
};
const REMOVED: Policy = Policy {
    function_removed: true,
    ..POLICY
};

fn failure() -> Failure {
    Failure::new("ITS_OWN", "as the function said")
}

/// An execution accepted 10 s ago.
fn in_state(state: State, attempts: u32) -> Execution {
    let finished_at = match state {
        State::Queued { .. } | State::Running { .. } => None,
        State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => {
            Some(Timestamp(99_000))
        }
    };
    Execution {
        state,
        attempts,
        started_at: (attempts > 0).then_some(Timestamp(95_000)),
        finished_at,
        ..Execution::queued(Timestamp(90_000))
    }
}

fn queued(due: i64, attempts: u32) -> Execution {
    let due = Timestamp(due);
    in_state(State::Queued { due }, attempts)
}

fn running(attempts: u32) -> Execution {
    in_state(State::Running { fence: CURRENT }, attempts)
}

fn aged(execution: Execution) -> Execution {
    Execution {
        created_at: Timestamp(39_999),
        age_since: Timestamp(39_999),
        ..execution
    }
}

fn states() -> Vec<(&'static str, Execution, Policy)> {
    let requeued = Execution {
        requeues: 2,
        ..running(1)
    };
    let faulted = Execution {
        faults: 2,
        ..running(1)
    };
    let present_at_a_death = Execution {
        faults: 1,
        deaths: 1,
        ..running(1)
    };
    vec![
        ("queued, due", queued(100_000, 0), POLICY),
        ("queued, deferred", queued(100_500, 1), POLICY),
        ("queued, too old", aged(queued(100_000, 1)), POLICY),
        ("queued, removed", queued(100_000, 0), REMOVED),
        ("running 1 of 3", running(1), POLICY),
        ("running 3 of 3", running(3), POLICY),
        ("running, too old", aged(running(1)), POLICY),
        ("running, removed", running(1), REMOVED),
        ("running, requeued 2 of 2", requeued, POLICY),
        ("running, faults 2 of 2", faulted, POLICY),
        ("running, 1 death", present_at_a_death, POLICY),
        ("success", in_state(State::Success, 1), POLICY),
        ("error", in_state(State::Error(failure()), 3), POLICY),
        (
            "error, removed",
            in_state(State::Error(failure()), 3),
            REMOVED,
        ),
        (
            "error, too old",
            aged(in_state(State::Error(failure()), 3)),
            POLICY,
        ),
        ("timeout", in_state(State::Timeout(failure()), 3), POLICY),
        (
            "cancelled",
            in_state(State::Cancelled(failure()), 1),
            POLICY,
        ),
    ]
}

fn finishes() -> Vec<(&'static str, Event)> {
    let finish = |fence, verdict| Event::Finish { fence, verdict };
    vec![
        ("finish success", finish(CURRENT, Verdict::Success)),
        ("finish error", finish(CURRENT, Verdict::Error(failure()))),
        ("finish retry", finish(CURRENT, Verdict::Retry(failure()))),
        (
            "finish timed out",
            finish(CURRENT, Verdict::TimedOut(failure())),
        ),
        ("finish requeue", finish(CURRENT, Verdict::Requeue(None))),
        (
            "finish requeue 5 s",
            finish(CURRENT, Verdict::Requeue(Some(5_000))),
        ),
        (
            "finish requeue 2 min",
            finish(CURRENT, Verdict::Requeue(Some(120_000))),
        ),
        ("finish success (stale)", finish(OLDER, Verdict::Success)),
        (
            "finish retry (stale)",
            finish(OLDER, Verdict::Retry(failure())),
        ),
    ]
}

fn events() -> Vec<(&'static str, Event)> {
    let claim = |when| Event::Claim {
        fence: Fence(8),
        when,
    };
    let fault = |fence| Event::Fault {
        fence,
        cause: "no free slot in the pool".to_owned(),
    };
    let complete = |fence, completion| Event::Complete { fence, completion };
    let mut events = vec![
        ("claim when due", claim(ClaimWhen::Due)),
        ("claim now", claim(ClaimWhen::Now)),
    ];
    events.extend(finishes());
    events.extend([
        ("fault", fault(CURRENT)),
        ("fault (stale)", fault(OLDER)),
        ("interrupt", Event::Interrupt { fence: CURRENT }),
        ("interrupt (stale)", Event::Interrupt { fence: OLDER }),
        ("lost", Event::Lost),
        ("complete success", complete(None, Completion::Success)),
        (
            "complete error",
            complete(None, Completion::Error(failure())),
        ),
        (
            "complete retry",
            complete(None, Completion::Retry(failure())),
        ),
        (
            "complete timeout",
            complete(None, Completion::Timeout(failure())),
        ),
        (
            "complete success (its claim)",
            complete(Some(CURRENT), Completion::Success),
        ),
        (
            "complete retry (its claim)",
            complete(Some(CURRENT), Completion::Retry(failure())),
        ),
        (
            "complete success (stale)",
            complete(Some(OLDER), Completion::Success),
        ),
        (
            "complete retry (stale)",
            complete(Some(OLDER), Completion::Retry(failure())),
        ),
        ("cancel", Event::Cancel),
        ("expire", Event::Expire { by_hand: false }),
        ("expire (by hand)", Event::Expire { by_hand: true }),
        ("queue timeout", Event::QueueTimeout { limit_ms: 2_000 }),
        ("caller gone", Event::CallerGone),
        ("remove function", Event::RemoveFunction),
        ("age out", Event::AgeOut),
        ("redrive", Event::Redrive),
    ]);
    events
}

fn printed(result: &Result<Stepped, Rejected>) -> String {
    let stepped = match result {
        Ok(stepped) => stepped,
        Err(Rejected::NotDue(at)) => return format!("no: not due for {} ms", at.ms_since(NOW)),
        Err(rejected) => return format!("no: {rejected}"),
    };
    let next = &stepped.next;
    let state = match &next.state {
        State::Queued { due } => format!("queued in {} ms", due.ms_since(NOW)),
        State::Running { fence } => format!("running as {fence}"),
        State::Success => "success".to_owned(),
        State::Error(failure) => format!("error {}", failure.code),
        State::Timeout(failure) => format!("timeout {}", failure.code),
        State::Cancelled(failure) => format!("cancelled {}", failure.code),
    };
    let (attempts, requeues, faults) = (next.attempts, next.requeues, next.faults);
    let mut line = format!("{state}; attempts {attempts}, requeues {requeues}, faults {faults}");
    if next.deaths > 0 {
        let _ = write!(line, ", deaths {}", next.deaths);
    }
    for (is_set, word) in [
        (stepped.effects.stop_guest, "; stop guest"),
        (stepped.effects.unqueue, "; unqueue"),
        (stepped.effects.publish, "; publish"),
    ] {
        line.push_str(if is_set { word } else { "" });
    }
    match stepped.effects.requeue {
        None => {}
        Some(Requeued::Retry(_)) => line.push_str("; requeue (retry)"),
        Some(Requeued::Later(_)) => line.push_str("; requeue (later)"),
        Some(Requeued::Fault(_)) => line.push_str("; requeue (fault)"),
        Some(Requeued::Interrupt(_)) => line.push_str("; requeue (interrupt)"),
        Some(Requeued::Redrive(_)) => line.push_str("; requeue (redrive)"),
    }
    line
}

#[test]
fn every_state_and_every_event() {
    let mut table = String::new();
    for (state, execution, policy) in states() {
        for (event, what) in events() {
            let result = step(&execution, &what, &policy, NOW);
            let _ = writeln!(table, "{state:<25}| {event:<29}| {}", printed(&result));
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

/// What people read: every sentence of the machine's own, once.
#[test]
fn every_reason_says_what_to_do() {
    let mut seen = std::collections::BTreeSet::new();
    for (_, execution, policy) in states() {
        for ((_, what), is_direct) in events()
            .into_iter()
            .flat_map(|it| [(it.clone(), false), (it, true)])
        {
            let policy = Policy {
                is_direct,
                ..policy
            };
            let Ok(stepped) = step(&execution, &what, &policy, NOW) else {
                continue;
            };
            let own = stepped
                .next
                .failure()
                .filter(|it| it.code != failure().code);
            if let Some(Failure { code, message }) = own {
                seen.insert(format!("{code}: {message}"));
            }
        }
    }
    insta::assert_snapshot!(seen.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn times_follow_the_state() {
    let at = |execution: &Execution, event: &Event| {
        let next = step(execution, event, &POLICY, NOW)
            .expect("a legal step")
            .next;
        (
            next.created_at.0,
            next.age_since.0,
            next.started_at,
            next.finished_at,
        )
    };
    let claim = Event::Claim {
        fence: CURRENT,
        when: ClaimWhen::Due,
    };
    let began = Some(Timestamp(95_000));
    assert_eq!(
        at(&queued(100_000, 0), &claim),
        (90_000, 90_000, Some(NOW), None)
    );
    assert_eq!(at(&running(1), &Event::Lost), (90_000, 90_000, began, None));
    assert_eq!(
        at(&running(1), &Event::Cancel),
        (90_000, 90_000, began, Some(NOW))
    );
    let ended = in_state(State::Error(failure()), 3);
    assert_eq!(at(&ended, &Event::Redrive), (90_000, NOW.0, None, None));
}

#[test]
fn the_last_failure_stays_exactly_as_it_came() {
    for (verdict, state) in [
        (Verdict::Retry(failure()), State::Error(failure())),
        (Verdict::TimedOut(failure()), State::Timeout(failure())),
    ] {
        let event = Event::Finish {
            fence: CURRENT,
            verdict,
        };
        let stepped = step(&running(3), &event, &POLICY, NOW).expect("the claim is current");
        assert_eq!(stepped.next.state, state);
    }
}
