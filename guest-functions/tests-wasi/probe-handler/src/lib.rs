//! The probe as a typed handler.

use pelton_guest::{Payload, handler};

#[handler]
fn handle(input: Payload) -> Payload {
    Payload::new("text/plain; charset=utf-8", probe::answer(&input.body))
}
