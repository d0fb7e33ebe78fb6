//! `pelton doctor`: one line for each thing that was looked at, and what to do about it.
//!
//! **Invariant:** changes nothing; ends with 1 if anything fails and with 0 otherwise, warnings included.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::wire::Health;
use crate::app::doctor::{self, Finding, Level};
use crate::config::{Limits, env};

/// Time for the server's answer about its health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Check a data folder, this machine and a running server, and say what to do
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The data folder
    #[arg(long, value_name = "DIR", env = env::DATA_DIR, hide_env_values = true, default_value = "./pelton-data")]
    data_dir: PathBuf,
    /// The file with the key that secrets are encrypted with: who may read it is looked at
    #[arg(long, value_name = "FILE", env = env::SECRETS_KEY_FILE, hide_env_values = true)]
    secrets_key_file: Option<PathBuf>,
}

impl Args {
    pub(super) async fn execute(self, context: &Context) -> Result<Exit, Failure> {
        // What a server on this machine would be told, as far as the environment says.
        let mut findings = doctor::examine(&self.data_dir, &Limits::default());
        findings.extend(self.secrets_key_file.as_deref().map(doctor::key_file));
        findings.push(server(context).await);
        let failed = findings.iter().filter(|found| found.level == Level::Fail);
        let failed = failed.count();
        match context.format {
            Format::Json => output::print(&as_json(&findings, failed))?,
            Format::Human => {
                for found in &findings {
                    let line = format!("{:<4}  {:<13}  {}", found.level, found.subject, found.text);
                    output::print(&line)?;
                }
            }
        }
        Ok(if failed == 0 {
            Exit::Success
        } else {
            Exit::Failed
        })
    }
}

fn as_json(findings: &[Finding], failed: usize) -> String {
    let checks: Vec<_> = findings
        .iter()
        .map(|found| {
            json!({
                "level": found.level.to_string(),
                "subject": found.subject,
                "text": found.text,
            })
        })
        .collect();
    json!({"checks": checks, "failed": failed}).to_string()
}

async fn server(context: &Context) -> Finding {
    let subject = "server";
    let health = ["actuator", "health", "readiness"];
    let asked = tokio::time::timeout(HEALTH_TIMEOUT, context.client.get(&health, &[])).await;
    match asked {
        Ok(Ok(answer)) if answer.read::<Health>().is_ok() => {
            Finding::ok(subject, "ready for calls")
        }
        Ok(Err(Failure::Unreachable { server, cause })) => Finding::ok(
            subject,
            format!("none answers at {server} ({cause}); --server says where to look"),
        ),
        Ok(Err(Failure::Answered(answer))) => Finding::fail(
            subject,
            format!(
                "it answers {} to the question whether it is ready: its log says why, and a store that failed needs a restart",
                answer.status
            ),
        ),
        Ok(Ok(_) | Err(_)) => Finding::fail(subject, "its answer cannot be read: is it a Pelton?"),
        Err(_) => Finding::fail(
            subject,
            format!(
                "it does not say within {} s whether it is ready: look at its log and its load",
                HEALTH_TIMEOUT.as_secs()
            ),
        ),
    }
}
