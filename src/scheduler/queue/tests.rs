//! Which work runs next, of whom, and how much at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp(1_000);

fn queues(guests_max: u32) -> Queues {
    let mut queues = Queues::new(bounds(guests_max, 8));
    for function in 1..=3 {
        queues.set_bounds(
            FunctionId(function),
            Bounds {
                concurrency: 2,
                queue_size: 4,
            },
        );
    }
    queues
}

fn push(queues: &mut Queues, function: i64, due: i64) -> ExecutionId {
    let item = queued(Class::Guest);
    let place = queues.push(FunctionId(function), item, Timestamp(due), NOW);
    assert!(place.is_some());
    item.id
}

fn queued(class: Class) -> Item {
    Item {
        id: ExecutionId::new(NOW),
        class,
        lane: Lane::Queued,
        company: Company::Any,
        input_bytes: 1,
    }
}

fn bounds(guests_max: u32, endpoint_calls_max: u32) -> PlaneBounds {
    PlaneBounds {
        guests_max,
        endpoint_calls_max,
        input_bytes_max: 100,
        suspect_alone_max: Duration::from_secs(1),
    }
}

/// So many milliseconds after the first time that is asked for.
fn at(ms: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(ms)
}

#[test]
fn functions_take_turns() {
    let mut queues = queues(100);
    let hot: Vec<_> = (0..3).map(|_| push(&mut queues, 1, 0)).collect();
    let cold = push(&mut queues, 2, 0);
    let order: Vec<_> = (0..)
        .map_while(|fence| {
            let (function, id, class) = queues.take_any(at(0))?;
            queues.claim(function, queued(class), Fence(fence));
            Some(id)
        })
        .collect();
    // The third hot one waits: its function runs two at once.
    assert_eq!(order, [hot[0], cold, hot[1]]);
    queues.release(Fence(0), at(0));
    assert_eq!(queues.take_any(at(0)).map(|(_, id, _)| id), Some(hot[2]));
}

#[test]
fn the_plane_has_a_bound_of_its_own() {
    let mut queues = queues(1);
    push(&mut queues, 1, 0);
    let second = push(&mut queues, 2, 0);
    let (function, _, class) = queues.take_any(at(0)).unwrap();
    queues.claim(function, queued(class), Fence(1));
    assert_eq!(queues.take_any(at(0)), None);
    queues.release(Fence(1), at(0));
    queues.release(Fence(1), at(0));
    assert_eq!(queues.take_any(at(0)).map(|(_, id, _)| id), Some(second));
    assert_eq!(queues.running_all(), 0);
}

#[test]
fn deferred_work_waits_apart_and_comes_back_in_order() {
    let mut queues = queues(100);
    let late = push(&mut queues, 1, 3_000);
    let soon = push(&mut queues, 1, 2_000);
    let ready = push(&mut queues, 1, 0);
    assert_eq!(queues.next_due(), Some(Timestamp(2_000)));
    assert_eq!(queues.take_any(at(0)).map(|(_, id, _)| id), Some(ready));
    assert_eq!(queues.take_any(at(0)), None);
    let promoted = queues.promote_due(Timestamp(3_000));
    assert_eq!(
        promoted.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [soon, late]
    );
    assert_eq!(queues.take_any(at(0)).map(|(_, id, _)| id), Some(soon));
    assert_eq!(queues.next_due(), None);
}

#[test]
fn only_new_work_is_refused() {
    let mut queues = queues(100);
    let function = FunctionId(1);
    for _ in 0..4 {
        assert_eq!(queues.room(function, Lane::Queued), Ok(()));
        queues.reserve(function, Lane::Queued);
    }
    assert_eq!(queues.room(function, Lane::Queued), Err(Full));
    queues.unreserve(function, Lane::Queued);
    push(&mut queues, 1, 0);
    // A retry returns beyond the bound.
    push(&mut queues, 1, 0);
    assert_eq!(queues.waiting(function), 5);
    assert_eq!(queues.room(function, Lane::Queued), Err(Full));
}

#[test]
fn a_drain_takes_ready_work_first_and_skips_what_it_put_back() {
    let mut queues = queues(100);
    let later = push(&mut queues, 1, 5_000);
    let ready = push(&mut queues, 1, 0);
    let mut skip = HashSet::new();
    let function = FunctionId(1);
    assert_eq!(
        queues.take_of(function, Early::AnyTime, &skip, at(0)),
        Taken::Next(ready)
    );
    assert_eq!(
        queues.take_of(function, Early::DueOnly, &skip, at(0)),
        Taken::Empty
    );
    skip.insert(later);
    assert_eq!(
        queues.take_of(function, Early::AnyTime, &skip, at(0)),
        Taken::Empty
    );
    skip.clear();
    assert_eq!(
        queues.take_of(function, Early::AnyTime, &skip, at(0)),
        Taken::Next(later)
    );
    assert_eq!(queues.next_due(), None);
}

#[test]
fn what_follows_one_of_another_kind_is_not_kept_waiting_by_it() {
    let mut queues = Queues::new(bounds(1, 1));
    let [busy, mixed] = [FunctionId(1), FunctionId(2)];
    for function in [busy, mixed] {
        let bounds = Bounds {
            concurrency: 2,
            queue_size: 4,
        };
        queues.set_bounds(function, bounds);
    }
    let push = |queues: &mut Queues, function, class| {
        let item = queued(class);
        let place = queues.push(function, item, NOW, NOW).unwrap();
        (item.id, place)
    };
    // The only place for calls to services is taken, so the first one of `mixed` waits.
    push(&mut queues, busy, Class::Endpoint);
    let (function, _, class) = queues.take_any(at(0)).unwrap();
    queues.claim(function, queued(class), Fence(1));
    let (_, waiting) = push(&mut queues, mixed, Class::Endpoint);
    let (guest, _) = push(&mut queues, mixed, Class::Guest);
    assert_eq!(queues.take_any(at(0)), None);
    // It is cancelled: what follows it is a guest, and there is a place for one.
    queues.remove(mixed, waiting);
    assert_eq!(queues.take_any(at(0)), Some((mixed, guest, Class::Guest)));
    // The same where nothing follows yet.
    let (_, waiting) = push(&mut queues, mixed, Class::Endpoint);
    assert_eq!(queues.take_any(at(0)), None);
    queues.remove(mixed, waiting);
    let (guest, _) = push(&mut queues, mixed, Class::Guest);
    assert_eq!(queues.take_any(at(0)), Some((mixed, guest, Class::Guest)));
}

#[test]
fn the_crowd_before_a_caller_is_what_no_slot_takes() {
    let mut queues = queues(3);
    let caller = |queues: &mut Queues, function| {
        let item = Item {
            lane: Lane::Caller,
            ..queued(Class::Guest)
        };
        queues.push(FunctionId(function), item, NOW, NOW).unwrap();
    };
    let crowd = |queues: &Queues| queues.crowd(FunctionId(1), Class::Guest);
    assert_eq!(crowd(&queues), None);
    // A promised place counts as if its caller were there.
    queues.reserve(FunctionId(1), Lane::Caller);
    assert_eq!(crowd(&queues), None);
    queues.reserve(FunctionId(1), Lane::Caller);
    let of_own = |before| Crowd {
        before,
        slots: 2,
        plane: None,
    };
    assert_eq!(crowd(&queues), Some(of_own(0)));
    queues.unreserve(FunctionId(1), Lane::Caller);
    queues.unreserve(FunctionId(1), Lane::Caller);
    for _ in 0..3 {
        caller(&mut queues, 1);
    }
    for fence in 0..2 {
        let (function, _, class) = queues.take_any(at(0)).unwrap();
        queues.claim(function, queued(class), Fence(fence));
    }
    assert_eq!(crowd(&queues), Some(of_own(1)));
    assert_eq!(queues.waiting_callers_all(), 1);
    // The plane's last slot goes to another function, of which two more wait for the next one.
    for _ in 0..3 {
        caller(&mut queues, 2);
    }
    let (function, _, class) = queues.take_any(at(0)).unwrap();
    queues.claim(function, queued(class), Fence(2));
    let expected = Crowd {
        plane: Some((3, 3)),
        ..of_own(1)
    };
    assert_eq!(crowd(&queues), Some(expected));
    queues.check();
}

#[test]
fn a_raised_concurrency_acts_at_once() {
    let mut queues = queues(100);
    for _ in 0..3 {
        push(&mut queues, 1, 0);
    }
    for fence in 0..2 {
        let (function, _, class) = queues.take_any(at(0)).unwrap();
        queues.claim(function, queued(class), Fence(fence));
    }
    assert_eq!(queues.take_any(at(0)), None);
    queues.set_bounds(
        FunctionId(1),
        Bounds {
            concurrency: 3,
            queue_size: 4,
        },
    );
    assert!(queues.take_any(at(0)).is_some());
}

#[test]
fn a_large_input_waits_for_room_and_is_not_passed_over() {
    let mut queues = queues(100);
    let sized = |queues: &mut Queues, function, input_bytes| {
        let item = Item {
            input_bytes,
            ..queued(Class::Guest)
        };
        queues.push(FunctionId(function), item, NOW, NOW).unwrap();
        item
    };
    let first = sized(&mut queues, 1, 60);
    let large = sized(&mut queues, 2, 1_000);
    let small = sized(&mut queues, 3, 1);
    let take = |queues: &mut Queues, item: Item, fence| {
        let (function, id, _) = queues.take_any(at(0))?;
        assert_eq!(id, item.id);
        queues.claim(function, item, Fence(fence));
        Some(())
    };
    assert!(take(&mut queues, first, 1).is_some());
    // Larger than the bound: it runs when nothing of its kind does.
    assert_eq!(queues.take_any(at(0)), None);
    queues.release(Fence(1), at(0));
    assert!(take(&mut queues, large, 2).is_some());
    assert_eq!(queues.take_any(at(0)), None);
    queues.check();
    queues.release(Fence(2), at(0));
    assert!(take(&mut queues, small, 3).is_some());
    queues.check();
}

#[test]
fn a_ramp_lets_more_and_more_run() {
    let mut queues = queues(32);
    for function in 1..=3 {
        for _ in 0..2 {
            push(&mut queues, function, 0);
        }
    }
    let mut fences = 0..;
    let mut running = |queues: &mut Queues, steps| {
        queues.set_ramp(steps);
        while let Some((function, _, class)) = queues.take_any(at(0)) {
            queues.claim(function, queued(class), Fence(fences.next().unwrap()));
        }
        queues.running_all()
    };
    assert_eq!(running(&mut queues, 1), 2);
    assert_eq!(running(&mut queues, 2), 4);
    assert_eq!(running(&mut queues, RAMP_STEPS), 6);
}

/// A suspect of this function that is ready.
fn suspect(queues: &mut Queues, function: i64) -> (Item, Place) {
    let item = Item {
        company: Company::NoSuspect,
        ..queued(Class::Guest)
    };
    let place = queues.push(FunctionId(function), item, NOW, NOW);
    (item, place.unwrap())
}

/// Takes what is next at this time and claims it.
#[track_caller]
fn starts(queues: &mut Queues, ms: u64, item: Item) {
    let taken = queues.take_any(at(ms));
    let (function, id, _) = taken.expect("something is next");
    assert_eq!(id, item.id);
    queues.claim(function, item, next_fence());
    queues.check();
}

#[track_caller]
fn nothing_starts(queues: &mut Queues, ms: u64) {
    assert_eq!(queues.take_any(at(ms)), None);
    queues.check();
    assert!(!queues.has_startable());
}

/// Ends the run of this item's function that began last.
fn ends(queues: &mut Queues, ms: u64, function: i64) {
    let running = queues.gate.running();
    let mine = running.filter(|(_, of)| *of == FunctionId(function));
    let fence = mine.map(|(fence, _)| fence).max().expect("it runs");
    queues.release(fence, at(ms));
    queues.check();
}

fn next_fence() -> Fence {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    Fence(NEXT.fetch_add(1, Ordering::SeqCst))
}

fn ordinary(queues: &mut Queues, function: i64) -> Item {
    let item = queued(Class::Guest);
    let place = queues.push(FunctionId(function), item, NOW, NOW);
    place.unwrap();
    item
}

#[test]
fn a_suspect_has_a_while_by_itself_and_no_more() {
    let mut queues = queues(100);
    let (suspect, _) = suspect(&mut queues, 1);
    let other = ordinary(&mut queues, 2);
    starts(&mut queues, 0, suspect);
    assert_eq!(queues.wakes_at(), Some(at(1_000)));
    nothing_starts(&mut queues, 999);
    let skip = HashSet::new();
    let by_hand =
        |queues: &mut Queues, ms| queues.take_of(FunctionId(2), Early::AnyTime, &skip, at(ms));
    assert_eq!(by_hand(&mut queues, 999), Taken::Busy);
    // It runs for ever; others go on beside it all the same, however many.
    starts(&mut queues, 1_000, other);
    assert_eq!(queues.wakes_at(), None, "there is nothing to wait for");
    for ms in 1_001..1_003 {
        let other = ordinary(&mut queues, 3);
        starts(&mut queues, ms, other);
    }
}

#[test]
fn a_suspect_begins_when_nothing_runs_and_after_a_while_beside_what_does() {
    let mut queues = queues(100);
    let long = ordinary(&mut queues, 3);
    starts(&mut queues, 0, long);
    let short = ordinary(&mut queues, 3);
    starts(&mut queues, 0, short);
    let (first, _) = suspect(&mut queues, 1);
    let other = ordinary(&mut queues, 2);
    nothing_starts(&mut queues, 10);
    ends(&mut queues, 20, 3);
    nothing_starts(&mut queues, 20);
    nothing_starts(&mut queues, 1_009);
    // Held for a second all in all: then it begins beside what is left, and keeps nobody.
    starts(&mut queues, 1_010, first);
    starts(&mut queues, 1_010, other);
    ends(&mut queues, 1_020, 1);
    ends(&mut queues, 1_020, 2);
    ends(&mut queues, 1_020, 3);
    // Here nothing runs that it would have to wait for.
    let (second, _) = suspect(&mut queues, 1);
    starts(&mut queues, 9_000, second);
}

#[test]
fn two_suspects_never_run_at_once_and_the_others_have_as_long_for_themselves() {
    let mut queues = queues(100);
    let (first, _) = suspect(&mut queues, 1);
    let (second, _) = suspect(&mut queues, 2);
    let others = [ordinary(&mut queues, 2), ordinary(&mut queues, 3)];
    assert_eq!(queues.waiting(FunctionId(2)), 2);
    starts(&mut queues, 0, first);
    nothing_starts(&mut queues, 399);
    ends(&mut queues, 400, 1);
    for other in others {
        starts(&mut queues, 400, other);
    }
    assert_eq!(queues.wakes_at(), Some(at(800)));
    ends(&mut queues, 500, 2);
    ends(&mut queues, 500, 3);
    nothing_starts(&mut queues, 799);
    starts(&mut queues, 800, second);
    // Past its while it still runs: a third one waits for its end, and nobody else does.
    let (third, _) = suspect(&mut queues, 3);
    let other = ordinary(&mut queues, 3);
    starts(&mut queues, 1_800, other);
    nothing_starts(&mut queues, 60_000);
    ends(&mut queues, 60_000, 3);
    ends(&mut queues, 60_000, 2);
    starts(&mut queues, 60_000, third);
}

#[test]
fn every_function_that_waits_has_a_turn_between_two_suspects() {
    let mut queues = queues(1);
    let (first, _) = suspect(&mut queues, 1);
    let (second, _) = suspect(&mut queues, 1);
    let others = [ordinary(&mut queues, 2), ordinary(&mut queues, 3)];
    starts(&mut queues, 0, first);
    ends(&mut queues, 10, 1);
    starts(&mut queues, 10, others[0]);
    nothing_starts(&mut queues, 5_000);
    ends(&mut queues, 5_000, 2);
    starts(&mut queues, 5_000, others[1]);
    ordinary(&mut queues, 2);
    ends(&mut queues, 6_000, 3);
    starts(&mut queues, 6_000, second);
}

#[test]
fn a_suspect_whose_function_has_no_slot_keeps_nobody_waiting() {
    let mut queues = queues(100);
    for _ in 0..2 {
        let long = ordinary(&mut queues, 1);
        starts(&mut queues, 0, long);
    }
    let (waits, _) = suspect(&mut queues, 1);
    let other = ordinary(&mut queues, 2);
    starts(&mut queues, 0, other);
    nothing_starts(&mut queues, 5_000);
    assert_eq!(queues.wakes_at(), None);
    ends(&mut queues, 5_000, 1);
    nothing_starts(&mut queues, 5_000);
    starts(&mut queues, 6_000, waits);
}

#[test]
fn a_suspect_that_is_taken_out_keeps_nobody_waiting() {
    let mut queues = queues(100);
    let running = ordinary(&mut queues, 1);
    starts(&mut queues, 0, running);
    let (_, place) = suspect(&mut queues, 2);
    let other = ordinary(&mut queues, 3);
    nothing_starts(&mut queues, 0);
    queues.remove(FunctionId(2), place);
    starts(&mut queues, 1, other);
    suspect(&mut queues, 2);
    queues.remove_function(FunctionId(2));
    assert_eq!(queues.waiting(FunctionId(2)), 0);
    let other = ordinary(&mut queues, 3);
    starts(&mut queues, 2, other);
}
