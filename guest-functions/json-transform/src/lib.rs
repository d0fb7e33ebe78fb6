//! Groups the rows of a table by one field and counts, sums or averages another, or finds its extremes.
//!
//! The input is `{"data": [rows], "groupBy": "field", "operation": "count", "valueField": "field"}`; the
//! operation is `count` (the default), `sum`, `avg`, `min` or `max`, in any case, and all but `count` need
//! a `valueField`. A row without the group's field belongs to the group `null`; a value that is no number
//! is passed over; a group without any value has 0. Groups stand in the order of their first row.
//!
//! The contract is older than Pelton: what cannot be done is an ordinary answer, `{"error": "…"}`, and not
//! an error of the execution. `order-intake` shows the other way.

use std::collections::HashMap;

use pelton_guest::{Outcome, handler};
use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

const NO_OBJECT: &str = "Input must be a JSON object";
const NO_TABLE: &str = "Fields 'data' (array) and 'groupBy' (string) are required";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grouped<'a> {
    group_by: &'a str,
    operation: &'a str,
    groups: Groups,
}

#[derive(Serialize)]
struct Complaint {
    error: String,
}

#[handler]
fn handle(input: Value) -> Outcome {
    match Query::read(&input) {
        Ok(query) => Outcome::success_json(&query.answer()),
        Err(error) => Outcome::success_json(&Complaint { error }),
    }
}

/// What is asked for.
struct Query<'a> {
    rows: &'a [Value],
    group_by: &'a str,
    /// In lower case.
    operation: String,
    /// `None` for a count, which needs none.
    value_field: Option<&'a str>,
}

impl<'a> Query<'a> {
    fn read(input: &'a Value) -> Result<Self, String> {
        let fields = input.as_object().ok_or(NO_OBJECT)?;
        let rows = fields.get("data").and_then(Value::as_array);
        let group_by = fields.get("groupBy").and_then(Value::as_str);
        let (Some(rows), Some(group_by)) = (rows, group_by) else {
            return Err(NO_TABLE.to_owned());
        };
        let operation = match fields.get("operation") {
            None | Some(Value::Null) => "count".to_owned(),
            Some(named) => text(named).to_lowercase(),
        };
        let value_field = fields.get("valueField").and_then(Value::as_str);
        if operation != "count" && value_field.is_none() {
            return Err(format!(
                "Field 'valueField' is required for operation: {operation}"
            ));
        }
        Ok(Self {
            rows,
            group_by,
            operation,
            value_field,
        })
    }

    fn answer(&self) -> Grouped<'_> {
        let mut groups = Groups::default();
        for row in self.rows {
            let group = groups.of(text(row.get(self.group_by).unwrap_or(&Value::Null)));
            group.rows += 1;
            if let Some(Value::Number(value)) = self.value_field.and_then(|field| row.get(field)) {
                group.values.push(value.clone());
            }
        }
        for group in &mut groups.groups {
            group.answer = self.fold(group);
        }
        Grouped {
            group_by: self.group_by,
            operation: &self.operation,
            groups,
        }
    }

    fn fold(&self, group: &Group) -> Value {
        let values = &group.values;
        match self.operation.as_str() {
            "count" => group.rows.into(),
            "sum" => sum(values),
            "avg" if values.is_empty() => 0.0.into(),
            "avg" => (total(values) / values.len() as f64).into(),
            "min" => extreme(values, |one, other| one < other),
            "max" => extreme(values, |one, other| one > other),
            unknown => format!("unknown operation: {unknown}").into(),
        }
    }
}

/// Whole numbers add up to a whole number, as long as it is one that JSON's readers can hold.
fn sum(values: &[Number]) -> Value {
    let whole = values.iter().try_fold(0_i64, |sum, value| {
        value.as_i64().and_then(|value| sum.checked_add(value))
    });
    whole.map_or_else(|| total(values).into(), Value::from)
}

fn total(values: &[Number]) -> f64 {
    values.iter().filter_map(Number::as_f64).sum()
}

/// The first value that `beats` all others, as it was written.
fn extreme(values: &[Number], beats: impl Fn(f64, f64) -> bool) -> Value {
    let best = values.iter().reduce(|best, value| {
        let wins = match (value.as_f64(), best.as_f64()) {
            (Some(value), Some(best)) => beats(value, best),
            _ => false,
        };
        if wins { value } else { best }
    });
    best.map_or_else(|| 0.into(), |best| Value::Number(best.clone()))
}

/// A value as a group's name: a string as it is, anything else as its JSON.
fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

/// Groups in the order in which they were first seen, which is the order of the answer's members.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    places: HashMap<String, usize>,
}

struct Group {
    name: String,
    rows: u64,
    values: Vec<Number>,
    answer: Value,
}

impl Groups {
    fn of(&mut self, name: String) -> &mut Group {
        let next = self.groups.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.groups.push(Group {
                name,
                rows: 0,
                values: Vec::new(),
                answer: Value::Null,
            });
        }
        &mut self.groups[place]
    }
}

impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.groups.iter().map(|group| (&group.name, &group.answer)))
    }
}

#[cfg(test)]
mod tests {
    use pelton_guest::{Execution, testing};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cases_come_out() {
        testing::check_cases(handle, include_str!("../cases.json"));
    }

    #[test]
    fn groups_stand_in_the_order_of_their_first_row() {
        let input = json!({"data": [{"k": "z"}, {"k": "a"}, {"k": "z"}, 7], "groupBy": "k"});
        let Outcome::Success(answer) = testing::call_json(handle, &Execution::default(), &input)
        else {
            panic!("a count cannot fail");
        };
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            text.ends_with(r#""groups":{"z":2,"a":1,"null":1}}"#),
            "{text}"
        );
    }

    #[test]
    fn a_sum_beyond_whole_numbers_is_a_fraction_and_no_overflow() {
        let values = [Number::from(i64::MAX), Number::from(i64::MAX)];
        assert_eq!(sum(&values), json!(2.0 * i64::MAX as f64));
        assert_eq!(sum(&[Number::from(u64::MAX)]), json!(u64::MAX as f64));
    }
}
