//! A service of Restate that echoes JSON: what `cargo bench --bench peers` has Restate's server call.
//!
//! It says where it listens, and then answers each line of its input with the number of calls that it has ended. It
//! ends with its input.
//!
//! **Invariant:** it computes nothing but the echo: it is not what is measured.

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use restate_sdk::prelude::*;
use serde_json::Value;

/// The service; its name and that of its handler are in the path that calls it.
struct Echo {
    ended: Arc<AtomicU64>,
}

#[service]
impl Echo {
    #[handler]
    async fn echo(
        &self,
        _ctx: Context<'_>,
        input: Json<Value>,
    ) -> Result<Json<Value>, HandlerError> {
        self.ended.fetch_add(1, Ordering::Relaxed);
        Ok(input)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ended = Arc::new(AtomicU64::new(0));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let counted = Arc::clone(&ended);
    std::thread::spawn(move || {
        // Nobody to tell: nothing is left to do.
        let _ = tell(address, &counted);
        std::process::exit(0);
    });
    let endpoint = Endpoint::builder().bind(Echo { ended }).build();
    HttpServer::new(endpoint).serve(listener).await;
    Ok(())
}

fn tell(address: SocketAddr, ended: &AtomicU64) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "restate-echo listens on http://{address}")?;
    for line in io::stdin().lock().lines() {
        line?;
        writeln!(stdout, "{}", ended.load(Ordering::Relaxed))?;
    }
    Ok(())
}
