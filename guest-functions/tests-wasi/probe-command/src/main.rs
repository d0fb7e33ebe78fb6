//! The probe as a program; besides, it can end in ways that only programs have.

use std::io::{self, Read as _, Write as _};

fn main() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    match probe::asked(&input).as_str() {
        "exit" => std::process::exit(65),
        "end of input" => {
            // Once more after the end: still the end, and no error.
            let mut more = [0; 8];
            let read = io::stdin().read(&mut more)?;
            println!("read after the end: {read} bytes");
            Ok(())
        }
        _ => io::stdout().write_all(answer(&input).as_bytes()),
    }
}

#[cfg(target_env = "p2")]
fn answer(input: &[u8]) -> String {
    let probe = probe::asked(input);
    if probe == "calls" {
        return called(&reach::value("call"));
    }
    reach::answer(&probe).unwrap_or_else(|| probe::answer(input))
}

#[cfg(not(target_env = "p2"))]
fn answer(input: &[u8]) -> String {
    probe::answer(input)
}

#[cfg(target_env = "p2")]
fn called(url: &str) -> String {
    let urls: Vec<_> = pelton_guest_http::Url::parse(url).into_iter().collect();
    let heads = pelton_guest_http::outgoing::heads_with("GET", &urls, 1, &reach::value("TOKEN"))
        .into_iter();
    heads
        .map(|head| match head {
            Ok(head) => format!("status {}\n", head.status),
            Err(error) => format!("{error}\n"),
        })
        .collect()
}
