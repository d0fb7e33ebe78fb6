//! The word count as a web service of `wasi:http` 0.3: the body is a stream, the answer another.
//!
//! What is answered is `word-stats-http`'s; what is written here is how 0.3 says it. There is no Rust target of
//! 0.3 yet: it is built for `wasm32-wasip2`, with the crate `wasip3`.

#[cfg(target_family = "wasm")]
mod host;

#[cfg(test)]
mod tests {
    #[test]
    fn the_cases_come_out() {
        pelton_guest_http::testing::check_cases(words::web::answer, include_str!("../cases.json"));
    }
}
