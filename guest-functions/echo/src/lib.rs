//! Answers what it was sent: the same bytes, the same content type.

use pelton_guest::{Payload, handler};

#[handler]
fn handle(input: Payload) -> Payload {
    input
}

#[cfg(test)]
mod tests {
    use pelton_guest::{Execution, Outcome, testing};

    use super::*;

    #[test]
    fn the_cases_come_out() {
        testing::check_cases(handle, include_str!("../cases.json"));
    }

    #[test]
    fn bytes_that_are_no_text_come_back_as_they_were() {
        let sent = Payload::new("application/octet-stream", [0, 159, 146, 150]);
        let outcome = testing::call(handle, &Execution::default(), sent.clone());
        assert_eq!(outcome, Outcome::Success(sent));
    }
}
