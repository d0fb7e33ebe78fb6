//! The desk against the real plane: the same scheduler, retries and limits as in the shop, in process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context as _;
use order_flow::{Desk, Item, Order, Outcome, Plane, Standing};
use pelton::clock::Clock;
use pelton::execution::Status;
use pelton::guests::{self, Built};
use pelton::model::ExecutionId;
use pelton::testing::{Harness, START, Setup};
use serde_json::{Value, json};

/// Eight hours and forty minutes: the shop opens in twenty.
const TWENTY_TO_NINE_MS: u64 = (8 * 60 + 40) * 60 * 1000;

/// The functions, built from Pelton's own examples. A project of yours would name its own files.
static GUESTS: LazyLock<Vec<Built>> = LazyLock::new(|| {
    let folder = guests::find(None).expect("the functions lie beside this example");
    guests::build(&folder, &mut |_| {}).expect("the functions build")
});

/// The plane as the desk sees it: what HTTP is in the shop is a method call here.
struct InProcess(Harness);

impl Plane for InProcess {
    async fn enqueue(&self, function: &str, key: &str, input: &Value) -> anyhow::Result<String> {
        let call = self.0.call(function, input).idempotency_key(key);
        Ok(call.enqueue().await?.to_string())
    }

    async fn result(&self, id: &str) -> anyhow::Result<Outcome> {
        let execution = self.0.execution(parse(id)).await?;
        Ok(match execution.status() {
            Status::Queued | Status::Running => Outcome::Open,
            Status::Success => Outcome::Done(execution.output_json()),
            Status::Error | Status::Timeout | Status::Cancelled => {
                Outcome::Failed(execution.error_code().unwrap_or_default().to_owned())
            }
        })
    }

    async fn invoke(&self, function: &str, input: &Value) -> anyhow::Result<Value> {
        let execution = self.0.call(function, input).invoke().await?;
        execution.assert_success();
        Ok(execution.output_json())
    }
}

fn parse(id: &str) -> ExecutionId {
    ExecutionId::parse(id).expect("the plane's own id")
}

/// A function's file: the component, or the core module where exit codes matter.
fn component(name: &str) -> &'static Path {
    let built = GUESTS.iter().find(|built| built.guest.name == name);
    &built.expect("a guest of that name").component
}

fn core(name: &str) -> anyhow::Result<Vec<u8>> {
    let built = GUESTS.iter().find(|built| built.guest.name == name);
    let core = built.and_then(|built| built.core.as_deref());
    let core = core.with_context(|| format!("{name} is no command"))?;
    std::fs::read(core).with_context(|| format!("cannot read {}", core.display()))
}

/// A desk at twenty to nine, with the three functions deployed. `mail_attempts` is what the notifier has.
async fn desk(mail_attempts: u32) -> anyhow::Result<Desk<InProcess>> {
    let setup = Setup {
        clock: Clock::manual(START.plus_ms(TWENTY_TO_NINE_MS)),
        ..Setup::default()
    };
    let plane = Harness::with(setup).await?;
    for name in ["order-intake", "json-transform"] {
        plane.deploy_file(name, component(name)).await?;
    }
    plane
        .deploy_with("notify", core("flaky")?, move |spec| {
            spec.version.max_retries = mail_attempts;
        })
        .await?;
    Ok(Desk::new(InProcess(plane)))
}

fn order(order_id: &str, sku: &str, quantity: u64) -> Order {
    Order {
        order_id: order_id.to_owned(),
        items: vec![Item {
            sku: sku.to_owned(),
            quantity,
        }],
        warehouse: BTreeMap::new(),
    }
}

/// What the plane does in so much time, and the desk looking after it.
async fn pass(desk: &mut Desk<InProcess>, time: Duration) -> anyhow::Result<()> {
    desk.plane().0.drain_for("order-intake", time).await?;
    desk.look().await?;
    // Retries of the notifier come a moment later.
    let moment = Duration::from_secs(60);
    desk.plane().0.drain_for("notify", moment).await?;
    desk.look().await
}

#[tokio::test]
async fn an_early_order_waits_for_the_opening_and_is_then_confirmed() -> anyhow::Result<()> {
    let mut desk = desk(3).await?;
    desk.take("north", &order("A-1", "wheel", 2), "08:40", "09:00")
        .await?;
    pass(&mut desk, Duration::from_secs(10 * 60)).await?;
    assert_eq!(desk.standing("A-1"), Some(&Standing::Received));
    pass(&mut desk, Duration::from_secs(10 * 60)).await?;
    assert_eq!(desk.standing("A-1"), Some(&Standing::Confirmed));
    Ok(())
}

#[tokio::test]
async fn a_busy_warehouse_is_asked_again() -> anyhow::Result<()> {
    let mut desk = desk(3).await?;
    let mut busy = order("A-2", "nozzle", 1);
    busy.warehouse = BTreeMap::from([
        ("warehouse".to_owned(), json!("busy")),
        ("busyForAttempts".to_owned(), json!(2)),
    ]);
    desk.take("south", &busy, "09:30", "09:00").await?;
    let plane = &desk.plane().0;
    let drained = plane
        .drain_for("order-intake", Duration::from_secs(60))
        .await?;
    let execution = plane.execution(drained.items[0].execution_id).await?;
    execution
        .assert_success()
        .assert_attempts(3)
        .assert_requeues(0);
    assert_eq!(
        execution.logs(),
        [
            "attempt 1: the warehouse is busy",
            "attempt 2: the warehouse is busy"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn an_order_that_is_sent_twice_is_one_order_and_one_message() -> anyhow::Result<()> {
    let mut desk = desk(3).await?;
    let order = order("A-3", "bucket", 10);
    desk.take("north", &order, "09:30", "09:00").await?;
    // The desk starts again and has forgotten everything; the plane has not.
    let mut desk = Desk::new(InProcess(desk.into_plane().0));
    desk.take("north", &order, "09:30", "09:00").await?;
    let drained = desk.plane().0.drain_all("order-intake").await?;
    assert_eq!(drained.items.len(), 1, "one execution for both");
    pass(&mut desk, Duration::ZERO).await?;
    assert_eq!(desk.standing("A-3"), Some(&Standing::Confirmed));
    Ok(())
}

#[tokio::test]
async fn a_wrong_order_is_refused_with_the_functions_own_code() -> anyhow::Result<()> {
    let mut desk = desk(3).await?;
    desk.take("north", &order("A-4", "dynamo", 1), "09:30", "09:00")
        .await?;
    pass(&mut desk, Duration::ZERO).await?;
    let refused = Standing::Refused("UNKNOWN_ITEM".to_owned());
    assert_eq!(desk.standing("A-4"), Some(&refused));
    Ok(())
}

#[tokio::test]
async fn a_customer_who_cannot_be_told_is_called() -> anyhow::Result<()> {
    // The mail server answers at the second attempt, and there is only one.
    let mut desk = desk(1).await?;
    desk.take("north", &order("A-5", "wheel", 1), "09:30", "09:00")
        .await?;
    pass(&mut desk, Duration::ZERO).await?;
    assert_eq!(desk.standing("A-5"), Some(&Standing::CallCustomer));
    Ok(())
}

#[tokio::test]
async fn the_day_is_summed_up_by_region() -> anyhow::Result<()> {
    let mut desk = desk(3).await?;
    for (region, order) in [
        ("north", order("A-6", "wheel", 1)),
        ("south", order("A-7", "bucket", 5)),
        ("north", order("A-8", "nozzle", 2)),
        ("south", order("A-9", "bucket", 0)),
    ] {
        desk.take(region, &order, "09:30", "09:00").await?;
    }
    pass(&mut desk, Duration::ZERO).await?;
    let sales = desk.sales().await?;
    let expected = [("north", 12_900 + 2 * 1850), ("south", 5 * 420)];
    assert_eq!(
        sales,
        expected
            .map(|(region, cents)| (region.to_owned(), cents))
            .into()
    );
    Ok(())
}
