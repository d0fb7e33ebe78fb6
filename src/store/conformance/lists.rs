//! Lists: filters, order, cursors.

use super::world::{START, World, claim, ended, failure, new_execution, transition};
use crate::execution::{State, Status};
use crate::model::ExecutionId;
use crate::store::{Filter, Guard, Order};

/// Two functions, each with executions in every state, one a millisecond; newest first.
async fn populated(world: &World) -> Vec<(ExecutionId, &'static str, Status)> {
    let mut expected = Vec::new();
    let functions = [world.function("alpha").await, world.function("beta").await];
    for round in 0..4 {
        for status in Status::ALL {
            for (function, name) in functions.iter().zip(["alpha", "beta"]) {
                let ms = u64::try_from(expected.len()).unwrap();
                let new = world.accepted(function, ms).await;
                let state = match status {
                    Status::Queued => None,
                    Status::Running => {
                        world.log_claim(claim(new.id, world.next_fence()));
                        None
                    }
                    Status::Success => Some(State::Success),
                    Status::Error => Some(State::Error(failure())),
                    Status::Timeout => Some(State::Timeout(failure())),
                    Status::Cancelled => Some(State::Cancelled(failure())),
                };
                if let Some(state) = state {
                    let next = ended(&new, state, 1_000 + round);
                    world.done(transition(new.id, Guard::Live, next)).await;
                }
                expected.push((new.id, name, status));
            }
        }
    }
    expected.reverse();
    expected
}

async fn ids(world: &World, filter: &Filter, limit: u32) -> Vec<ExecutionId> {
    let page = world.executions(filter, limit).await.unwrap();
    page.into_iter()
        .map(|record| {
            assert_eq!(record.output, None);
            record.id
        })
        .collect()
}

pub(crate) async fn lists_newest_first_by_function_and_status(world: World) {
    let all = populated(&world).await;
    let functions = [None, Some("alpha"), Some("beta"), Some("gamma")];
    let statuses = Status::ALL.into_iter().map(Some).chain([None]);
    for status in statuses {
        for function in functions {
            let filter = Filter {
                function: function.map(|name| name.parse().unwrap()),
                status,
                ..Filter::default()
            };
            let expected: Vec<_> = all
                .iter()
                .filter(|(_, name, of)| {
                    function.is_none_or(|wanted| wanted == *name)
                        && status.is_none_or(|wanted| wanted == *of)
                })
                .map(|(id, _, _)| *id)
                .collect();
            assert_eq!(ids(&world, &filter, 500).await, expected, "{filter:?}");
            assert_eq!(
                ids(&world, &filter, 3).await,
                expected[..expected.len().min(3)]
            );
        }
    }
}

pub(crate) async fn reads_several_at_once(world: World) {
    let all = populated(&world).await;
    let mut wanted: Vec<_> = all.iter().step_by(3).map(|(id, _, _)| *id).collect();
    let gone = ExecutionId::new(START);
    wanted.insert(2, gone);
    let read = world.executions_of(&wanted).await.unwrap();
    wanted.remove(2);
    assert_eq!(read.iter().map(|one| one.id).collect::<Vec<_>>(), wanted);
    for one in read {
        assert_eq!(world.execution(one.id).await.unwrap(), Some(one));
    }
    assert_eq!(world.executions_of(&[]).await.unwrap(), []);
}

pub(crate) async fn lists_from_a_time_on(world: World) {
    let function = world.function("alpha").await;
    let mut made = Vec::new();
    for ms in [0, 1_000, 2_000] {
        made.push(world.accepted(&function, ms).await.id);
    }
    for (since, expected) in [
        (START, vec![made[2], made[1], made[0]]),
        (START.plus_ms(1_000), vec![made[2], made[1]]),
        (START.plus_ms(1_001), vec![made[2]]),
        (START.plus_ms(9_000), vec![]),
        (
            crate::model::Timestamp(i64::MIN),
            vec![made[2], made[1], made[0]],
        ),
        (crate::model::Timestamp(i64::MAX), vec![]),
    ] {
        let filter = Filter {
            since: Some(since),
            ..Filter::default()
        };
        assert_eq!(ids(&world, &filter, 10).await, expected, "{since:?}");
    }
}

pub(crate) async fn lists_until_a_time(world: World) {
    let function = world.function("alpha").await;
    let mut made = Vec::new();
    for ms in [0, 1_000, 2_000] {
        made.push(world.accepted(&function, ms).await.id);
    }
    for (since, until, expected) in [
        (None, START, vec![]),
        (None, START.plus_ms(1), vec![made[0]]),
        (None, START.plus_ms(2_000), vec![made[1], made[0]]),
        (
            Some(START.plus_ms(1_000)),
            START.plus_ms(2_000),
            vec![made[1]],
        ),
        (Some(START.plus_ms(2_000)), START.plus_ms(2_000), vec![]),
        (None, crate::model::Timestamp(i64::MIN), vec![]),
        (
            None,
            crate::model::Timestamp(i64::MAX),
            vec![made[2], made[1], made[0]],
        ),
    ] {
        let filter = Filter {
            since,
            until: Some(until),
            ..Filter::default()
        };
        assert_eq!(ids(&world, &filter, 10).await, expected, "{filter:?}");
    }
}

pub(crate) async fn pages_without_gaps_or_repeats(world: World) {
    let all = populated(&world).await;
    for status in Status::ALL.into_iter().map(Some).chain([None]) {
        for function in [None, Some("alpha")] {
            let is_one = |(_, name, of): &&(ExecutionId, &'static str, Status)| {
                function.is_none_or(|wanted| wanted == *name)
                    && status.is_none_or(|wanted| wanted == *of)
            };
            let mut expected: Vec<_> = all.iter().filter(is_one).map(|e| e.0).collect();
            for order in [Order::NewestFirst, Order::OldestFirst] {
                let filter = Filter {
                    function: function.map(|name| name.parse().unwrap()),
                    status,
                    order,
                    ..Filter::default()
                };
                for limit in [1, 3, 7] {
                    let found = paged(&world, filter.clone(), limit).await;
                    assert_eq!(found, expected, "{filter:?}");
                }
                expected.reverse();
            }
        }
    }
}

/// All ids of a list, page by page.
async fn paged(world: &World, mut filter: Filter, limit: u32) -> Vec<ExecutionId> {
    let mut found = Vec::new();
    loop {
        let page = ids(world, &filter, limit).await;
        found.extend_from_slice(&page);
        let Some(last) = page.last() else {
            return found;
        };
        match filter.order {
            Order::NewestFirst => filter.before = Some(*last),
            Order::OldestFirst => filter.after = Some(*last),
        }
    }
}

pub(crate) async fn pages_through_what_has_not_ended(world: World) {
    let all = populated(&world).await;
    world.flush().await.unwrap();
    let mut expected: Vec<_> = all
        .iter()
        .filter(|(_, _, status)| !status.is_terminal())
        .map(|(id, _, status)| (*id, *status))
        .collect();
    expected.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = world.live_executions(after, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        assert!(page.len() <= 5);
        found.extend(page.iter().map(|live| (live.id, live.execution.status())));
    }
    assert_eq!(found, expected);
    let gone = new_execution(&world.function("late").await, 0);
    assert_eq!(world.execution(gone.id).await.unwrap(), None);
}
