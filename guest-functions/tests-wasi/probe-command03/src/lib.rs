//! The probe as a program of `wasi:cli` 0.3. What it answers is written by the standard library, which is of 0.2: one
//! component may speak both.

use std::io::Write as _;

use wasip3::cli::{exit, stdin};

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let (stream, _read) = stdin::read_via_stream();
        let input = stream.collect().await;
        if probe::asked(&input) == "exit" {
            exit::exit_with_code(65);
        }
        let answer = answer(&input).await;
        std::io::stdout()
            .write_all(answer.as_bytes())
            .map_err(|_| ())
    }
}

async fn answer(input: &[u8]) -> String {
    let probe = probe::asked(input);
    if probe == "calls" {
        return reach_http03::call(&reach::value("call"), &reach::value("TOKEN")).await;
    }
    reach::answer(&probe).unwrap_or_else(|| probe::answer(input))
}
