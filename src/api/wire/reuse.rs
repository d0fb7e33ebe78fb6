//! The part of a spec that says how instances are reused, as JSON.
//!
//! **Invariant:** what [`to_value`] writes, [`read`] reads back.

use serde_json::{Value, json};

use super::fields::Fields;
use crate::model::{Reuse, limits};

/// An empty object asks for it, too: it says that the defaults will do.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Reuse> {
    let default = Reuse::default();
    let mut fields = fields.nested("reuse", "reuse.")?;
    let reuse = Reuse {
        max_calls: fields
            .small_number("maxCalls", &limits::REUSE_MAX_CALLS)
            .unwrap_or(default.max_calls),
        max_concurrent: fields
            .small_number("maxConcurrent", &limits::REUSE_MAX_CONCURRENT)
            .unwrap_or(default.max_concurrent),
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
