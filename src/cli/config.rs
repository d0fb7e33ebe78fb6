//! `pelton config`: shows and changes what can be changed while a server runs.
//!
//! **Invariant:** a change names the revision that was seen: of two who change at once one is told so, and
//! nobody undoes what somebody else has set.

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value};

use super::Context;
use super::client::{Answer, Client};
use super::exit::{Exit, Failure};
use super::input;
use super::output::{self, Format};
use super::wire::{RuntimeChange, RuntimeConfig, RuntimeConfigValid};

const PATH: [&str; 3] = ["v1", "admin", "runtime-config"];

/// Show and change limits of a running server; a change acts at once and survives a restart
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the values in force and their revision
    Get,
    /// Change values
    Set {
        #[command(flatten)]
        settings: Settings,
        /// The revision that you have seen; the present one unless given
        #[arg(long, value_name = "N")]
        expected_revision: Option<u64>,
    },
    /// Ask whether values could be set; changes nothing
    Validate {
        #[command(flatten)]
        settings: Settings,
    },
}

/// What is set.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Settings {
    /// A value, as in rateMaxPerSecond=500 or syncQueueMaxQueueWait=PT0.5S; null goes back to the value that
    /// the server was started with
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = input::pair)]
    settings: Vec<(String, String)>,
}

impl Settings {
    fn body(&self) -> Map<String, Value> {
        let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
        let settings = self.settings.iter();
        settings
            .map(|(name, text)| (name.clone(), value(text)))
            .collect()
    }
}

impl Command {
    pub(crate) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        let client = &context.client;
        let show: fn(&Answer) -> Result<(), Failure>;
        let answer = match self {
            Self::Get => {
                show = |answer| print_values(&answer.read()?);
                client.get(&PATH, &[]).await
            }
            Self::Set {
                settings,
                expected_revision,
            } => {
                show = print_change;
                change(client, settings.body(), expected_revision).await
            }
            Self::Validate { settings } => {
                show = print_valid;
                let path: Vec<_> = PATH.into_iter().chain(["validate"]).collect();
                let body = Value::Object(settings.body()).to_string();
                client.post(&path, HeaderMap::new(), body).await
            }
        };
        let answer = answer.map_err(where_to_look)?;
        match context.format {
            Format::Json => output::print(&answer.text())?,
            Format::Human => show(&answer)?,
        }
        Ok(Exit::Success)
    }
}

async fn change(
    client: &Client,
    mut body: Map<String, Value>,
    expected_revision: Option<u64>,
) -> Result<Answer, Failure> {
    let expected = match expected_revision {
        Some(revision) => revision.into(),
        None => {
            let present: RuntimeConfig = client.get(&PATH, &[]).await?.read()?;
            present.0.get("revision").cloned().unwrap_or_default()
        }
    };
    body.insert("expectedRevision".to_owned(), expected);
    let request = client
        .request(Method::PATCH, &PATH)
        .header(CONTENT_TYPE, "application/json")
        .body(Value::Object(body).to_string());
    client.send(request).await
}

fn where_to_look(failure: Failure) -> Failure {
    if failure.is_code("REVISION_CONFLICT") {
        failure.hint("`pelton config get` shows what somebody else has set meanwhile")
    } else {
        failure
    }
}

/// A row for each value that the server shows.
fn print_values(values: &RuntimeConfig) -> Result<(), Failure> {
    let rows: Vec<_> = values
        .0
        .iter()
        .map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            [name.clone(), text.unwrap_or_else(|| value.to_string())]
        })
        .collect();
    output::print(&output::table(["KEY", "VALUE"], &rows))
}

fn print_change(answer: &Answer) -> Result<(), Failure> {
    let change: RuntimeChange = answer.read()?;
    print_values(&change.effective_config)?;
    warn(&change.warnings);
    Ok(())
}

fn print_valid(answer: &Answer) -> Result<(), Failure> {
    let valid: RuntimeConfigValid = answer.read()?;
    output::print("valid")?;
    warn(&valid.warnings);
    Ok(())
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        output::note(&format!("warning: {}", output::for_terminal(warning)));
    }
}
