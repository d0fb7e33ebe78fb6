//! What every load sends: one JSON value of about a kilobyte.
//!
//! **Invariant:** both servers of a comparison get the very same bytes.

use serde_json::{Value, json};

/// An order with twelve lines; 1 KB as compact JSON, wrapped as Pelton's calls are.
pub(crate) fn call() -> Value {
    let lines: Vec<Value> = (0..12)
        .map(|line| {
            json!({
                "article": format!("jet-{line:03}"),
                "name": "nozzle, bronze, 12 mm",
                "count": line * 7 + 1,
                "price": 12.5,
            })
        })
        .collect();
    json!({"input": {"order": "2026-0001", "customer": "Größe & Söhne", "lines": lines}})
}
