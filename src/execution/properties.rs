//! Properties of [`step`] over random histories: what must hold whatever arrives, in whatever order.
//!
//! **Invariant:** a history is drawn as data before it runs, so a failure shrinks and replays (proptest prints
//! the smallest one and writes its seed to `proptest-regressions/`).

use proptest::prelude::*;

use super::{
    ClaimWhen, Completion, Event, Execution, Policy, Requeued, State, Status, Stepped, Verdict,
    step,
};
use crate::model::{Failure, Fence, Timestamp};

/// Which claim an event names, relative to what was handed out so far.
#[derive(Debug, Clone, Copy)]
enum Named {
    Newest,
    Older,
    NeverGiven,
}

/// An event before its fence is known.
#[derive(Debug, Clone)]
enum Draft {
    Claim(ClaimWhen),
    Finish(Named, Verdict),
    Fault(Named),
    Interrupt(Named),
    Complete(Option<Named>, Completion),
    Fixed(Event),
}

#[derive(Debug, Clone)]
struct Happening {
    after_ms: u64,
    jitter: u32,
    draft: Draft,
}

fn failure() -> Failure {
    Failure::new("ITS_OWN", "as the function said")
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![6 => Just(Named::Newest), 1 => Just(Named::Older), 1 => Just(Named::NeverGiven)]
}

fn draft() -> impl Strategy<Value = Draft> {
    let when = prop_oneof![Just(ClaimWhen::Due), Just(ClaimWhen::Now)];
    let verdict = prop_oneof![
        1 => Just(Verdict::Success),
        1 => Just(Verdict::Error(failure())),
        4 => Just(Verdict::Retry(failure())),
        2 => Just(Verdict::TimedOut(failure())),
        4 => proptest::option::of(0..20_000_u64).prop_map(Verdict::Requeue),
        1 => Just(Verdict::Requeue(Some(u64::MAX))),
    ];
    let completion = prop_oneof![
        1 => Just(Completion::Success),
        1 => Just(Completion::Error(failure())),
        3 => Just(Completion::Retry(failure())),
        1 => Just(Completion::Timeout(failure())),
    ];
    let fixed = prop_oneof![
        4 => Just(Event::Lost),
        1 => Just(Event::Cancel),
        1 => Just(Event::Expire { by_hand: false }),
        1 => Just(Event::Expire { by_hand: true }),
        1 => Just(Event::CallerGone),
        1 => Just(Event::QueueTimeout { limit_ms: 2_000 }),
        1 => Just(Event::RemoveFunction),
        1 => Just(Event::AgeOut),
        4 => Just(Event::Redrive),
    ];
    prop_oneof![
        10 => when.prop_map(Draft::Claim),
        6 => (named(), verdict).prop_map(|(named, verdict)| Draft::Finish(named, verdict)),
        3 => named().prop_map(Draft::Fault),
        2 => named().prop_map(Draft::Interrupt),
        2 => (proptest::option::of(named()), completion).prop_map(|(n, c)| Draft::Complete(n, c)),
        3 => fixed.prop_map(Draft::Fixed),
    ]
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let after_ms = prop_oneof![3 => 0..50_u64, 2 => 0..5_000_u64, 1 => 0..60_000_u64];
    let one = (after_ms, any::<u32>(), draft()).prop_map(|(after_ms, jitter, draft)| Happening {
        after_ms,
        jitter,
        draft,
    });
    proptest::collection::vec(one, 0..80)
}

fn policy() -> impl Strategy<Value = Policy> {
    let delays = (
        prop_oneof![Just(0), 1..500_u64, Just(u64::MAX)],
        0..5_000_u64,
    );
    let ages = prop_oneof![1..100_u64, 1..100_000_u64, Just(u64::MAX)];
    (1..5_u32, delays, 0..4_u32, ages, 0..4_u32, any::<bool>()).prop_map(
        |(max_attempts, (base, max), max_requeues, max_age_ms, max_faults, removed)| Policy {
            max_attempts,
            base_delay_ms: base,
            max_delay_ms: max,
            max_requeues,
            max_age_ms,
            max_faults,
            function_removed: removed && max_age_ms % 4 == 0,
            is_direct: max_attempts == 1,
            jitter: 0,
        },
    )
}

/// A step that was taken.
struct Taken {
    before: Execution,
    event: Event,
    policy: Policy,
    now: Timestamp,
    stepped: Stepped,
}

/// A step that was refused.
struct Refused {
    before: Execution,
    event: Event,
}

struct Run {
    taken: Vec<Taken>,
    refused: Vec<Refused>,
    last: Execution,
    now: Timestamp,
    fences_given: u64,
}

const START: Timestamp = Timestamp(1_000_000);

fn run(policy: Policy, history: &[Happening]) -> Run {
    let mut run = Run {
        taken: Vec::new(),
        refused: Vec::new(),
        last: Execution::queued(START),
        now: START,
        fences_given: 1,
    };
    for happening in history {
        run.now = run.now.plus_ms(happening.after_ms);
        let event = run.event_of(&happening.draft);
        let policy = Policy {
            jitter: happening.jitter,
            ..policy
        };
        let before = run.last.clone();
        match step(&before, &event, &policy, run.now) {
            Err(_) => run.refused.push(Refused { before, event }),
            Ok(stepped) => {
                run.last = stepped.next.clone();
                let now = run.now;
                run.taken.push(Taken {
                    before,
                    event,
                    policy,
                    now,
                    stepped,
                });
            }
        }
    }
    run
}

impl Run {
    fn event_of(&mut self, draft: &Draft) -> Event {
        let newest = self.fences_given;
        let fence_of = |named: Named| match named {
            Named::Newest => Fence(newest),
            Named::Older => Fence(newest - 1),
            Named::NeverGiven => Fence(newest + 1_000),
        };
        match draft {
            Draft::Claim(when) => {
                self.fences_given += 1;
                Event::Claim {
                    fence: Fence(self.fences_given),
                    when: *when,
                }
            }
            Draft::Finish(named, verdict) => Event::Finish {
                fence: fence_of(*named),
                verdict: verdict.clone(),
            },
            Draft::Fault(named) => Event::Fault {
                fence: fence_of(*named),
                cause: "drawn".to_owned(),
            },
            Draft::Interrupt(named) => Event::Interrupt {
                fence: fence_of(*named),
            },
            Draft::Complete(named, completion) => Event::Complete {
                fence: named.map(fence_of),
                completion: completion.clone(),
            },
            Draft::Fixed(event) => event.clone(),
        }
    }
}

/// The claim that an event names, except the one that a claim takes.
fn named_fence(event: &Event) -> Option<Fence> {
    match event {
        Event::Finish { fence, .. } | Event::Fault { fence, .. } | Event::Interrupt { fence } => {
            Some(*fence)
        }
        Event::Complete { fence, .. } => *fence,
        Event::Claim { .. }
        | Event::Lost
        | Event::Cancel
        | Event::Expire { .. }
        | Event::QueueTimeout { .. }
        | Event::CallerGone
        | Event::RemoveFunction
        | Event::AgeOut
        | Event::Redrive => None,
    }
}

proptest! {
    #[test]
    fn terminal_states_absorb_everything_but_a_redrive(policy in policy(), history in happenings()) {
        for taken in run(policy, &history).taken {
            if taken.before.status().is_terminal() {
                prop_assert_eq!(&taken.event, &Event::Redrive);
                prop_assert!(matches!(taken.before.status(), Status::Error | Status::Timeout));
            }
        }
    }

    #[test]
    fn a_life_is_published_exactly_once(policy in policy(), history in happenings()) {
        let run = run(policy, &history);
        let mut is_published = false;
        for Taken { event, stepped, .. } in &run.taken {
            is_published &= *event != Event::Redrive;
            prop_assert!(!(is_published && stepped.effects.publish), "published twice");
            is_published |= stepped.effects.publish;
            prop_assert_eq!(is_published, stepped.next.status().is_terminal());
        }
    }

    #[test]
    fn a_stale_fence_changes_nothing(policy in policy(), history in happenings()) {
        for taken in run(policy, &history).taken {
            if let Some(named) = named_fence(&taken.event) {
                prop_assert_eq!(taken.before.fence(), Some(named));
            }
        }
    }

    #[test]
    fn counters_are_bounded(policy in policy(), history in happenings()) {
        for Taken { stepped, .. } in run(policy, &history).taken {
            let next = stepped.next;
            prop_assert!(next.attempts <= policy.max_attempts);
            prop_assert!(next.requeues <= policy.max_requeues + u32::from(next.status().is_terminal()));
            prop_assert!(next.faults <= policy.max_faults + u32::from(next.status().is_terminal()));
            let is_waiting = next.status() == Status::Queued;
            prop_assert!(!is_waiting || next.attempts < policy.max_attempts, "queued without an attempt left");
        }
    }

    #[test]
    fn every_change_says_what_follows(policy in policy(), history in happenings()) {
        for Taken { before, now, stepped, .. } in run(policy, &history).taken {
            let Stepped { next, effects } = stepped;
            prop_assert_eq!(next.created_at, START);
            prop_assert_eq!(next.finished_at, next.status().is_terminal().then_some(now));
            let due = match next.state {
                State::Queued { due } => Some(due),
                State::Running { .. } | State::Success | State::Error(_) | State::Timeout(_)
                | State::Cancelled(_) => None,
            };
            prop_assert_eq!(effects.requeue.map(Requeued::due), due);
            prop_assert!(due.is_none_or(|due| due >= now));
            prop_assert!(!effects.stop_guest || before.status() == Status::Running);
            let left_its_place = before.status() == Status::Queued && next.status() != Status::Running;
            prop_assert_eq!(effects.unqueue, left_its_place);
        }
    }

    #[test]
    fn nothing_starts_too_old_or_too_early(policy in policy(), history in happenings()) {
        for Taken { before, event, now, .. } in run(policy, &history).taken {
            if let Event::Claim { when, .. } = event {
                prop_assert!(now.ms_since(before.age_since) <= policy.max_age_ms);
                let State::Queued { due } = before.state else { panic!("claimed while not queued") };
                prop_assert!(when == ClaimWhen::Now || due <= now);
            }
        }
    }

    #[test]
    fn a_call_is_given_back_only_if_nothing_of_it_ran(policy in policy(), history in happenings()) {
        for Taken { before, event, .. } in run(policy, &history).taken {
            if matches!(event, Event::QueueTimeout { .. }) {
                prop_assert_eq!((before.started_at, before.attempts), (None, 0));
            }
        }
    }

    #[test]
    fn replaying_what_was_taken_gives_the_same_record(policy in policy(), history in happenings()) {
        let run = run(policy, &history);
        let mut replayed = Execution::queued(START);
        for Taken { event, policy, now, .. } in &run.taken {
            let stepped = step(&replayed, event, policy, *now);
            prop_assert!(stepped.is_ok(), "{:?}", stepped);
            replayed = stepped.map(|it| it.next).unwrap_or(replayed);
        }
        prop_assert_eq!(replayed, run.last);
    }

    #[test]
    fn a_cancel_is_refused_only_by_what_has_ended(policy in policy(), history in happenings()) {
        for Refused { before, event } in run(policy, &history).refused {
            prop_assert!(event != Event::Cancel || before.status().is_terminal());
        }
    }

    #[test]
    fn every_history_can_be_brought_to_an_end(policy in policy(), history in happenings()) {
        let Run { mut last, now, fences_given, .. } = run(policy, &history);
        let mut fence = Fence(fences_given);
        for _ in 0..=2 * policy.max_attempts {
            fence = Fence(fence.0 + 1);
            let event = match last.state {
                State::Queued { .. } if policy.function_removed => Event::RemoveFunction,
                State::Queued { .. } if last.is_too_old(&policy, now) => Event::AgeOut,
                State::Queued { .. } => Event::Claim { fence, when: ClaimWhen::Now },
                State::Running { fence } => Event::Finish { fence, verdict: Verdict::Retry(failure()) },
                State::Success | State::Error(_) | State::Timeout(_) | State::Cancelled(_) => break,
            };
            let stepped = step(&last, &event, &policy, now);
            prop_assert!(stepped.is_ok(), "{:?}: {:?}", event, stepped);
            last = stepped.map(|it| it.next).unwrap_or(last);
        }
        prop_assert!(last.status().is_terminal(), "still {:?}", last);
    }
}
