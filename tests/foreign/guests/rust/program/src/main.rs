//! A plain program: nothing in it knows that it will be wasm.

use std::io::{Read as _, stdin};
use std::process::exit;

fn main() {
    let mut input = String::new();
    if stdin().read_to_string(&mut input).is_err() {
        exit(65);
    }
    let asked: serde_json::Value = match serde_json::from_str(&input) {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("{error}");
            exit(65);
        }
    };
    if let Some(code) = asked["exit"].as_i64() {
        eprintln!("as asked");
        exit(code as i32);
    }
    let words = asked["text"].as_str().unwrap_or_default();
    println!(
        "{}",
        serde_json::json!({ "words": words.split_whitespace().count() })
    );
}
