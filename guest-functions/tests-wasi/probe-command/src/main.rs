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
        _ => io::stdout().write_all(probe::answer(&input).as_bytes()),
    }
}
