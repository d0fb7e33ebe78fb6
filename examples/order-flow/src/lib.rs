//! The order desk of a small shop: it takes orders in, confirms them, and sums up the day.
//!
//! The work itself is done by three functions on a Pelton plane:
//!
//! | function | does | what can happen |
//! |---|---|---|
//! | `order-intake` | checks an order and reserves its pieces | refused; put back until the shop opens; retried while the warehouse is busy |
//! | `notify` | tells the customer | the mail server is flaky: retried, and given up at last |
//! | `json-transform` | sums up the day | |
//!
//! Pelton does the waiting, the retrying and the remembering. What is left for the desk is which call follows
//! which, under which key, so that no customer is told twice, however often the desk itself starts again.
//!
//! **Invariant:** the desk knows a plane by [`Plane`] alone: over HTTP in the shop, in process in the tests.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};

/// What the desk needs of a plane: three requests of its HTTP API.
#[expect(
    async_fn_in_trait,
    reason = "the desk awaits it in place, on one thread"
)]
pub trait Plane {
    /// `POST /v1/functions/{function}:enqueue` with an `Idempotency-Key`; the execution's id.
    async fn enqueue(&self, function: &str, key: &str, input: &Value) -> anyhow::Result<String>;

    /// `GET /v1/executions/{id}`
    async fn result(&self, id: &str) -> anyhow::Result<Outcome>;

    /// `POST /v1/functions/{function}:invoke`; the output of a success.
    async fn invoke(&self, function: &str, input: &Value) -> anyhow::Result<Value>;
}

/// How an execution stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Queued or running.
    Open,
    /// It ended in success, with this output.
    Done(Value),
    /// It ended otherwise, with this code.
    Failed(String),
}

/// An order as a customer writes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The customer's own number of it: the same number is the same order.
    pub order_id: String,
    /// What is ordered.
    pub items: Vec<Item>,
    /// How the warehouse behaves; a stand-in for one.
    #[serde(flatten)]
    pub warehouse: BTreeMap<String, Value>,
}

/// A line of an order.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// What.
    pub sku: String,
    /// How many.
    pub quantity: u64,
}

/// Where an order stands, as the desk tells the customer at the counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Taken in, not yet accepted.
    Received,
    /// Accepted; the message to the customer is on its way.
    Accepted,
    /// Accepted, and the customer knows.
    Confirmed,
    /// Accepted, but the customer could not be told: somebody has to call.
    CallCustomer,
    /// Refused, with the function's code.
    Refused(String),
}

/// The desk.
pub struct Desk<P> {
    plane: P,
    tickets: BTreeMap<String, Ticket>,
}

struct Ticket {
    region: String,
    intake: String,
    notice: Option<String>,
    total_cents: u64,
    standing: Standing,
}

impl<P: Plane> Desk<P> {
    /// A desk without orders.
    pub fn new(plane: P) -> Self {
        Self {
            plane,
            tickets: BTreeMap::new(),
        }
    }

    /// The plane that the desk works on.
    pub fn plane(&self) -> &P {
        &self.plane
    }

    /// The plane, without the desk.
    pub fn into_plane(self) -> P {
        self.plane
    }

    /// Takes an order in; `now` and `opening` are times of day such as `08:40`. An order that was taken in
    /// before is the same one: the key says so to the plane, even if this desk has forgotten.
    ///
    /// # Errors
    /// The plane refused the call, or could not be reached: nothing happened, and it can be repeated.
    pub async fn take(
        &mut self,
        region: &str,
        order: &Order,
        now: &str,
        opening: &str,
    ) -> anyhow::Result<()> {
        let mut input = serde_json::to_value(order).context("an order is JSON")?;
        input["notBefore"] = json!(opening);
        input["now"] = json!(now);
        let key = format!("intake-{}", order.order_id);
        let intake = self.plane.enqueue("order-intake", &key, &input).await?;
        self.tickets
            .entry(order.order_id.clone())
            .or_insert_with(|| Ticket {
                region: region.to_owned(),
                intake,
                notice: None,
                total_cents: 0,
                standing: Standing::Received,
            });
        Ok(())
    }

    /// Looks at everything that is open and does the next step of it. Harmless to repeat.
    ///
    /// # Errors
    /// The plane could not be asked.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        for (order_id, ticket) in &mut self.tickets {
            match ticket.standing {
                Standing::Received => Self::confirm(&self.plane, order_id, ticket).await?,
                Standing::Accepted => Self::close(&self.plane, ticket).await?,
                Standing::Confirmed | Standing::CallCustomer | Standing::Refused(_) => {}
            }
        }
        Ok(())
    }

    /// Once the intake has succeeded, tells the customer.
    async fn confirm(plane: &P, order_id: &str, ticket: &mut Ticket) -> anyhow::Result<()> {
        match plane.result(&ticket.intake).await? {
            Outcome::Open => {}
            Outcome::Failed(code) => ticket.standing = Standing::Refused(code),
            Outcome::Done(accepted) => {
                let total = accepted["totalCents"].as_u64();
                ticket.total_cents = total.context("an accepted order has a total")?;
                // The mail server answers at the second attempt; a real notifier would say what to send.
                let message = json!({"succeedAt": 2});
                let key = format!("notify-{order_id}");
                ticket.notice = Some(plane.enqueue("notify", &key, &message).await?);
                ticket.standing = Standing::Accepted;
            }
        }
        Ok(())
    }

    /// Once the notifier has ended, closes the ticket.
    async fn close(plane: &P, ticket: &mut Ticket) -> anyhow::Result<()> {
        let Some(notice) = &ticket.notice else {
            bail!("an accepted order has a notice");
        };
        match plane.result(notice).await? {
            Outcome::Open => {}
            Outcome::Done(_) => ticket.standing = Standing::Confirmed,
            Outcome::Failed(_) => ticket.standing = Standing::CallCustomer,
        }
        Ok(())
    }

    /// Where an order stands; `None`: the desk has no such order.
    pub fn standing(&self, order_id: &str) -> Option<&Standing> {
        self.tickets.get(order_id).map(|ticket| &ticket.standing)
    }

    /// What was sold today in each region, in cents.
    ///
    /// # Errors
    /// The function failed, or the plane could not be asked.
    pub async fn sales(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let sold = self
            .tickets
            .values()
            .filter(|ticket| ticket.total_cents > 0);
        let rows: Vec<Value> = sold
            .map(|ticket| json!({"region": ticket.region, "cents": ticket.total_cents}))
            .collect();
        let query = json!({
            "data": rows, "groupBy": "region", "operation": "sum", "valueField": "cents",
        });
        let mut answer = self.plane.invoke("json-transform", &query).await?;
        serde_json::from_value(answer["groups"].take()).context("the sums are whole numbers")
    }
}
