//! How a version's instances are reused, as it is stored.
//!
//! **Invariant:** what is read back is within its ranges.

use serde::{Deserialize, Serialize};

use super::{Unreadable, in_range};
use crate::model::{Reuse, limits};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredReuse {
    max_calls: u32,
    max_concurrent: u32,
    idle_ms: u64,
}

pub(super) fn store_reuse(reuse: Reuse) -> StoredReuse {
    StoredReuse {
        max_calls: reuse.max_calls,
        max_concurrent: reuse.max_concurrent,
        idle_ms: reuse.idle_ms,
    }
}

pub(super) fn load_reuse(stored: &StoredReuse) -> Result<Reuse, Unreadable> {
    let check = |field, value: u64, range| in_range("version", field, value, &range);
    let StoredReuse {
        max_calls,
        max_concurrent,
        idle_ms,
    } = *stored;
    check("max_calls", max_calls.into(), limits::REUSE_MAX_CALLS)?;
    check(
        "max_concurrent",
        max_concurrent.into(),
        limits::REUSE_MAX_CONCURRENT,
    )?;
    check("idle_ms", idle_ms, limits::REUSE_IDLE_MS)?;
    Ok(Reuse {
        max_calls,
        max_concurrent,
        idle_ms,
    })
}
