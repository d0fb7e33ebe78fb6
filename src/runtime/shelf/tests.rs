use super::*;
use crate::model::{Code, Timestamp, VersionNumber, VersionSpec};

/// An item that says when it has ended.
struct Item(u32, Arc<AtomicU64>);

impl Drop for Item {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    shelf: Arc<Shelf<Item>>,
    ended: Arc<AtomicU64>,
}

const LONG: Duration = Duration::from_secs(3600);

impl World {
    fn of(items: u32, bytes: u64) -> Self {
        Self {
            shelf: Arc::new(Shelf::new(Capacity { items, bytes })),
            ended: Arc::default(),
        }
    }

    fn item(&self, number: u32) -> Item {
        Item(number, Arc::clone(&self.ended))
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    fn idle(&self) -> u32 {
        self.shelf.stats().idle
    }

    /// Puts an item down after a call that found none.
    fn keep(&self, function: &str, version: &Arc<Version>, number: u32, holds: Holds) {
        let function = function.parse().unwrap();
        let (ticket, _) = self.shelf.take(&function, version, |_| false);
        self.shelf.put(&ticket, self.item(number), holds, LONG);
    }

    fn take(&self, function: &str, version: &Arc<Version>) -> Option<u32> {
        let function = function.parse().unwrap();
        let (_ticket, item) = self.shelf.take(&function, version, |_| true);
        item.map(|item| item.0)
    }
}

fn version() -> Arc<Version> {
    Arc::new(Version {
        number: VersionNumber(1),
        code: Code::Echo,
        spec: VersionSpec::default(),
        created_at: Timestamp(0),
    })
}

const SMALL: Holds = Holds {
    bytes: 10,
    permits: 1,
    own_permits: 0,
};
const OF_03: Holds = Holds {
    bytes: 10,
    permits: 1,
    own_permits: 1,
};

#[tokio::test]
async fn an_item_comes_back_to_its_own_version_of_its_own_function_only() {
    let world = World::of(10, 1000);
    let (one, twin) = (version(), version());
    world.keep("a", &one, 1, SMALL);
    assert_eq!(world.take("a", &twin), None, "another version's");
    assert_eq!(world.take("b", &one), None, "another function's");
    assert_eq!(world.take("a", &one), Some(1));
    assert_eq!(world.take("a", &one), None, "it was given twice");
    let stats = world.shelf.stats();
    assert_eq!((stats.idle, stats.idle_bytes, stats.reused), (0, 0, 1));
    assert!(world.shelf.lock().functions.is_empty(), "rows are left");
}

#[tokio::test]
async fn what_does_not_fit_ends_and_the_last_used_comes_first() {
    let world = World::of(10, 1000);
    let one = version();
    let function = "a".parse().unwrap();
    let (ticket, _) = world.shelf.take(&function, &one, |_| true);
    for number in 1..=3 {
        world.shelf.put(&ticket, world.item(number), SMALL, LONG);
    }
    let (_ticket, item) = world.shelf.take(&function, &one, |item| item.0 < 3);
    assert_eq!(item.as_ref().map(|item| item.0), Some(2));
    assert_eq!((world.ended(), world.idle()), (1, 1));
}

#[tokio::test]
async fn a_change_ends_what_waits_and_what_is_in_use_does_not_come_back() {
    let world = World::of(10, 1000);
    let one = version();
    let function: FunctionName = "a".parse().unwrap();
    let (in_use, _) = world.shelf.take(&function, &one, |_| true);
    world.keep("a", &one, 1, SMALL);
    world.keep("b", &one, 2, SMALL);
    world.shelf.retire(&function);
    assert_eq!((world.ended(), world.idle()), (1, 1), "only a's");
    world.shelf.put(&in_use, world.item(3), SMALL, LONG);
    assert_eq!((world.ended(), world.idle()), (2, 1));
    drop(in_use);
    world.keep("a", &one, 4, SMALL);
    assert_eq!(world.take("a", &one), Some(4), "what came after it does");
    world.shelf.close();
    world.keep("a", &one, 5, SMALL);
    assert_eq!(world.idle(), 0);
}

#[tokio::test]
async fn whoever_waits_for_room_gets_the_oldest_and_nothing_is_put_down_meanwhile() {
    let world = World::of(10, 1000);
    let one = version();
    for number in 1..=3 {
        world.keep(&format!("f{number}"), &one, number, SMALL);
    }
    world.keep("f4", &one, 4, OF_03);
    world.keep("f5", &one, 5, OF_03);
    let needed = Holds {
        permits: 2,
        ..Holds::default()
    };
    let waiting = world.shelf.make_room(needed);
    assert_eq!((world.ended(), world.idle()), (2, 3));
    let own = world.shelf.make_room(Holds {
        own_permits: 1,
        ..Holds::default()
    });
    assert_eq!(world.take("f4", &one), None, "it was the oldest of 0.3");
    world.keep("f6", &one, 6, SMALL);
    assert_eq!(world.idle(), 2, "it was put down though two wait");
    drop(waiting);
    world.keep("f6", &one, 7, SMALL);
    assert_eq!(world.idle(), 2, "it was put down though one waits");
    drop(own);
    world.keep("f6", &one, 8, SMALL);
    assert_eq!(world.take("f6", &one), Some(8));
    assert_eq!(world.shelf.stats().evicted, 3);
    assert_eq!(world.take("f3", &one), Some(3));
    assert_eq!(world.take("f5", &one), Some(5));
}

#[tokio::test]
async fn items_and_bytes_are_bounded() {
    let world = World::of(2, 25);
    let one = version();
    for number in 1..=3 {
        world.keep(&format!("f{number}"), &one, number, SMALL);
    }
    assert_eq!(world.shelf.stats().idle_bytes, 20);
    assert_eq!(world.take("f1", &one), None, "the oldest had to go");
    let large = Holds { bytes: 20, ..SMALL };
    world.keep("f4", &one, 4, large);
    assert_eq!((world.idle(), world.shelf.stats().idle_bytes), (1, 20));
    let too_large = Holds { bytes: 26, ..SMALL };
    world.keep("f5", &one, 5, too_large);
    assert_eq!(world.take("f4", &one), Some(4), "it went for nothing");
    let none = World::of(0, 1000);
    none.keep("a", &one, 1, SMALL);
    assert_eq!(none.idle(), 0);
}

#[tokio::test]
async fn what_has_waited_for_its_time_ends_and_one_timer_looks_for_all() {
    let world = World::of(10, 1000);
    let one = version();
    let function = "a".parse().unwrap();
    for idle_for in [Duration::from_millis(1), Duration::from_millis(2)] {
        let (ticket, _) = world.shelf.take(&function, &one, |_| false);
        world.shelf.put(&ticket, world.item(1), SMALL, LONG);
        // Earlier than what the timer is set to by now.
        world.shelf.put(&ticket, world.item(2), SMALL, idle_for);
    }
    while world.idle() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.shelf.look(Instant::now() + 2 * LONG), None);
    assert_eq!((world.idle(), world.shelf.stats().evicted), (0, 0));
}

#[test]
fn another_async_runtime_goes_on_looking() {
    let world = World::of(10, 1000);
    let one = version();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    runtime().block_on(async { world.keep("a", &one, 1, SMALL) });
    assert!(world.shelf.lock().next_look.is_none(), "who looks?");
    runtime().block_on(async {
        let function = "b".parse().unwrap();
        let (ticket, _) = world.shelf.take(&function, &one, |_| true);
        let briefly = Duration::from_millis(1);
        world.shelf.put(&ticket, world.item(2), SMALL, briefly);
        while world.idle() > 1 {
            tokio::task::yield_now().await;
        }
    });
}
