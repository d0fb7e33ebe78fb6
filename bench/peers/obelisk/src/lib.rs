//! An activity of Obelisk that echoes: what `cargo bench --bench peers` has Obelisk run.

wit_bindgen::generate!({ world: "echo" });

use exports::bench::echo::activity::Guest;

struct Echo;

impl Guest for Echo {
    fn echo(input: String) -> Result<String, String> {
        Ok(input)
    }
}

export!(Echo);
