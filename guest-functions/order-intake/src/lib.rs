//! Takes in an order: refuses a bad one, waits for opening time, tries again while the warehouse is busy.
//!
//! A small realistic handler that uses all four outcomes:
//!
//! | what happens | outcome | input that shows it |
//! |---|---|---|
//! | the order makes no sense | error `INVALID_ORDER`, `UNKNOWN_ITEM` | `"items": []` |
//! | it is too early | requeue, until `notBefore` | `"now": "08:59:30", "notBefore": "09:00"` |
//! | the warehouse does not answer | retry `WAREHOUSE_BUSY` | `"warehouse": "busy", "busyForAttempts": 2` |
//! | the order is accepted | success, with the total | an order without any of these |
//!
//! So that everybody sees the same, the world stands in the input: what the clock shows, and how long the
//! warehouse stays busy (without `busyForAttempts`: for ever). An order that was put back once is taken to
//! have waited long enough, since the `now` of its input never moves. A real one would ask the clock and the
//! warehouse, with the execution's id as the key under which the reservation counts only once.

use std::time::Duration;

use pelton_guest::{Execution, Failure, Outcome, handler};
use serde::{Deserialize, Serialize};

/// What there is to buy, and the price of a piece in cents.
const CATALOGUE: [(&str, u64); 3] = [("bucket", 420), ("nozzle", 1850), ("wheel", 12_900)];
/// Lines of an order, at most.
const LINES_MAX: usize = 100;
/// Pieces of one line, at most.
const PIECES_MAX: u64 = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    order_id: String,
    items: Vec<Item>,
    #[serde(default)]
    warehouse: Warehouse,
    busy_for_attempts: Option<u32>,
    not_before: Option<TimeOfDay>,
    now: Option<TimeOfDay>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    sku: String,
    quantity: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Warehouse {
    #[default]
    Ready,
    Busy,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    order_id: String,
    status: &'static str,
    total_cents: u64,
    /// The attempt that succeeded, and how often the order was put back before.
    attempt: u32,
    requeues: u32,
}

#[handler]
fn handle(execution: &Execution, order: Order) -> Result<Accepted, Outcome> {
    let total_cents = total(&order)?;
    if let Some(delay) = until_opening(&order)?
        && execution.requeues == 0
    {
        return Err(Outcome::requeue_after(delay));
    }
    reserve(&order, execution.attempt)?;
    Ok(Accepted {
        order_id: order.order_id,
        status: "accepted",
        total_cents,
        attempt: execution.attempt,
        requeues: execution.requeues,
    })
}

/// The price of the whole order in cents. What is wrong with an order today is wrong tomorrow: final.
fn total(order: &Order) -> Result<u64, Failure> {
    if order.order_id.is_empty() {
        return Err(invalid("an order needs an id"));
    }
    if order.items.is_empty() || order.items.len() > LINES_MAX {
        return Err(invalid(format!(
            "an order has 1 to {LINES_MAX} items, got {}",
            order.items.len()
        )));
    }
    order.items.iter().map(price).sum()
}

fn price(item: &Item) -> Result<u64, Failure> {
    let Some((_, cents)) = CATALOGUE.iter().find(|(sku, _)| *sku == item.sku) else {
        return Err(Failure::new(
            "UNKNOWN_ITEM",
            format!("there is no {:?} in the catalogue", item.sku),
        ));
    };
    if !(1..=PIECES_MAX).contains(&item.quantity) {
        return Err(invalid(format!(
            "an item comes in 1 to {PIECES_MAX} pieces, got {} of {:?}",
            item.quantity, item.sku
        )));
    }
    Ok(cents * item.quantity)
}

/// How long until orders are taken, if they are not yet.
fn until_opening(order: &Order) -> Result<Option<Duration>, Failure> {
    match (&order.not_before, &order.now) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(invalid("`notBefore` needs `now`")),
        (Some(opening), Some(now)) => {
            let seconds = opening.0.saturating_sub(now.0);
            Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
        }
    }
}

/// Asks the warehouse. It may be ready at the next attempt.
fn reserve(order: &Order, attempt: u32) -> Result<(), Outcome> {
    match order.warehouse {
        Warehouse::Busy if attempt <= order.busy_for_attempts.unwrap_or(u32::MAX) => {
            // Standard error of a handler ends in the execution's logs.
            eprintln!("attempt {attempt}: the warehouse is busy");
            Err(Outcome::retry("WAREHOUSE_BUSY", "the warehouse is busy"))
        }
        Warehouse::Ready | Warehouse::Busy => Ok(()),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("INVALID_ORDER", message)
}

/// Seconds since midnight, written `HH:MM` or `HH:MM:SS`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct TimeOfDay(u64);

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        seconds_of_day(&text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no time of day such as 09:00 or 08:59:30"))
    }
}

fn seconds_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let mut part = |limit: u64| {
        parts
            .next()
            .filter(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u64>().ok())
            .filter(|value| *value < limit)
    };
    let (hours, minutes) = (part(24)?, part(60)?);
    let seconds = if text.len() > "HH:MM".len() {
        part(60)?
    } else {
        0
    };
    parts
        .next()
        .is_none()
        .then_some(hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use pelton_guest::testing;

    use super::*;

    #[test]
    fn the_cases_come_out() {
        testing::check_cases(handle, include_str!("../cases.json"));
    }

    #[test]
    fn a_time_of_day_has_two_digits_a_part() {
        assert_eq!(seconds_of_day("09:00"), Some(32_400));
        assert_eq!(seconds_of_day("23:59:59"), Some(86_399));
        for wrong in [
            "",
            "9:00",
            "24:00",
            "09:60",
            "09",
            "09:00:",
            "09:00:00:00",
            "+9:00",
            "09:00x",
        ] {
            assert_eq!(seconds_of_day(wrong), None, "for {wrong:?}");
        }
    }
}
