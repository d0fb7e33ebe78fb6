//! The part of a spec that says how instances are reused, as JSON.
//!
//! **Invariant:** what [`to_value`] writes, [`read`] reads back.

use serde_json::{Value, json};

use super::fields::{Fields, shown};
use crate::model::{Reuse, limits};

/// An empty object asks for it, too: it says that the defaults will do.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Reuse> {
    let default = Reuse::default();
    let mut fields = fields.nested("reuse", "reuse.")?;
    let reuse = Reuse {
        max_calls: fields
            .small_number("maxCalls", &limits::REUSE_MAX_CALLS)
            .unwrap_or(default.max_calls),
        max_concurrent: max_concurrent(&mut fields).unwrap_or(default.max_concurrent),
        idle_ms: fields
            .number("idleMs", &limits::REUSE_IDLE_MS)
            .unwrap_or(default.idle_ms),
    };
    for name in fields.left() {
        let name = crate::api::error::quoted(&name);
        fields.complain(
            &name,
            "there is no such field: there are maxCalls, maxConcurrent and idleMs",
        );
    }
    Some(reuse)
}

fn max_concurrent(fields: &mut Fields<'_>) -> Option<u32> {
    let value = fields.take("maxConcurrent")?;
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let within = number.filter(|number| limits::REUSE_MAX_CONCURRENT.contains(&u64::from(*number)));
    if within.is_none() {
        let complaint = format!(
            "must be 1, not {}: an instance answers one call at a time, so that logs, CPU time and a \
             cancellation are one call's own; a function that is called more often at once has several instances",
            shown(&value)
        );
        fields.complain("maxConcurrent", complaint);
    }
    within
}

/// What answers show; null where every call gets a fresh instance.
pub(super) fn to_value(reuse: Option<Reuse>) -> Value {
    let Some(reuse) = reuse else {
        return Value::Null;
    };
    json!({
        "maxCalls": reuse.max_calls,
        "maxConcurrent": reuse.max_concurrent,
        "idleMs": reuse.idle_ms,
    })
}
