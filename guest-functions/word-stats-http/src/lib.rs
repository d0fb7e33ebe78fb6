//! The word count as a web service of `wasi:http` 0.2: POST the JSON or the text, the counts come back.
//!
//! The same counts as `word-stats`, but what cannot be counted is answered 4xx, as web services do: through
//! `:invoke` it ends the execution in error.

use pelton_guest_http::serve;

serve!(words::web::answer);

#[cfg(test)]
mod tests {
    #[test]
    fn the_cases_come_out() {
        pelton_guest_http::testing::check_cases(words::web::answer, include_str!("../cases.json"));
    }
}
