//! A `wasi:cli/run@0.3` command: its first argument says what it does with its input.

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::exports::cli::run::Guest;
use wasip3::wit_bindgen::rt::async_support::StreamReader;
use wasip3::{wit_bindgen, wit_stream};

wasip3::cli::command::export!(Command);

struct Command;

impl Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        match arguments.get(1).map(String::as_str) {
            Some("fail") => return Err(()),
            Some("exit") => exit::exit_with_code(65),
            Some("panic") => panic!("own words"),
            Some("spin") => loop {
                std::hint::spin_loop();
            },
            Some("log") => write(stderr::write_via_stream, b"to stderr\n".to_vec()).await,
            _ => {}
        }
        let (input, _read) = stdin::read_via_stream();
        let text = input.collect().await;
        write(stdout::write_via_stream, text.to_ascii_uppercase()).await;
        Ok(())
    }
}

async fn write<F>(to: impl FnOnce(StreamReader<u8>) -> F, data: Vec<u8>)
where
    F: IntoFuture,
{
    let (mut writer, reader) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        writer.write_all(data).await;
    });
    to(reader).await;
}
