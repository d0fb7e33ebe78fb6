//! Lists: filters, order, cursors.

use super::world::{START, World, claim, ended, failure, new_execution, transition};
use crate::execution::{State, Status};
use crate::model::ExecutionId;
use crate::store::{Filter, Guard};

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

pub(crate) async fn pages_without_gaps_or_repeats(world: World) {
    let all = populated(&world).await;
    let errors_of_alpha = |(_, name, status): &&(ExecutionId, &'static str, Status)| {
        *name == "alpha" && *status == Status::Error
    };
    let everything: Vec<_> = all.iter().map(|(id, _, _)| *id).collect();
    let errors: Vec<_> = all.iter().filter(errors_of_alpha).map(|e| e.0).collect();
    let of_alpha = Filter {
        function: Some("alpha".parse().unwrap()),
        status: Some(Status::Error),
        ..Filter::default()
    };
    for (filter, expected) in [(Filter::default(), everything), (of_alpha, errors)] {
        for limit in [1, 3, 7] {
            let mut found = Vec::new();
            let mut page_filter = filter.clone();
            loop {
                let page = ids(&world, &page_filter, limit).await;
                found.extend_from_slice(&page);
                match page.last() {
                    Some(last) => page_filter.before = Some(*last),
                    None => break,
                }
            }
            assert_eq!(found, expected);
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
