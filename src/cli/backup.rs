//! `pelton backup` and `pelton restore`: a data folder's copy, and its way back.
//!
//! **Invariant:** works on folders alone and talks to no server; what was done is said on standard output,
//! progress on standard error.

use std::path::PathBuf;

use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::progress::Progress;
use crate::app::backup::{self as app, Progress as Done, Summary};
use crate::config::env;

/// Progress in plain lines is said so many times, at most, for the database.
const LINES_MAX: u32 = 10;

/// Copy a data folder, in use or not, to a new folder
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BackupArgs {
    /// The data folder of the plane
    #[arg(long, value_name = "DIR", env = env::DATA_DIR, hide_env_values = true, default_value = "./pelton-data")]
    data_dir: PathBuf,
    /// The folder to make; it must not exist
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

/// Put a backup into a data folder that is new or empty
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The data folder to fill
    #[arg(long, value_name = "DIR", env = env::DATA_DIR, hide_env_values = true, default_value = "./pelton-data")]
    data_dir: PathBuf,
}

impl BackupArgs {
    pub(super) fn execute(self, format: Format) -> Result<Exit, Failure> {
        let progress = Progress::step(&format!("copying {}", self.data_dir.display()));
        let mut lines = Lines::new(&progress);
        let made = app::backup(&self.data_dir, &self.to, &mut |done| lines.tell(done));
        progress.end();
        let summary = made?;
        if format == Format::Json {
            return print_json(&summary);
        }
        output::print(&format!(
            "backup {}: {}",
            self.to.display(),
            holds(&summary)
        ))?;
        Ok(Exit::Success)
    }
}

impl RestoreArgs {
    pub(super) fn execute(self, format: Format) -> Result<Exit, Failure> {
        let progress = Progress::step(&format!("restoring {}", self.from.display()));
        let mut lines = Lines::new(&progress);
        let restored = app::restore(&self.from, &self.data_dir, &mut |done| lines.tell(done));
        progress.end();
        let summary = restored?;
        if format == Format::Json {
            return print_json(&summary);
        }
        output::print(&format!(
            "restored {}: {}",
            self.data_dir.display(),
            holds(&summary)
        ))?;
        for line in runs_again(&summary) {
            output::print(&line)?;
        }
        Ok(Exit::Success)
    }
}

/// What the next start will do.
fn runs_again(summary: &Summary) -> Vec<String> {
    let unfinished = &summary.contents.unfinished;
    if unfinished.is_empty() {
        return vec![
            "nothing will run again: no execution was waiting when the backup was made".to_owned(),
        ];
    }
    let total = unfinished
        .values()
        .fold(0_u64, |sum, n| sum.saturating_add(*n));
    let mut lines = vec![format!(
        "{total} executions were waiting or running when the backup was made: the next start runs them, \
         those included that ended since"
    )];
    lines.extend(
        unfinished
            .iter()
            .map(|(function, count)| format!("  {function}: {count}")),
    );
    lines.push(
        "what was accepted after the backup is not in it, keys included: callers who repeat such a call \
         start a new execution"
            .to_owned(),
    );
    lines
}

fn holds(summary: &Summary) -> String {
    let contents = &summary.contents;
    let made = summary
        .made_at
        .and_then(|at| jiff::Timestamp::from_millisecond(at.0).ok())
        .map_or(String::new(), |at| format!(", as of {at:.0}"));
    format!(
        "{} functions, {} files of wasm ({}){made}; checked",
        contents.functions,
        contents.digests.len(),
        output::bytes(summary.code_bytes),
    )
}

fn print_json(summary: &Summary) -> Result<Exit, Failure> {
    let contents = &summary.contents;
    output::print(
        &json!({
            "functions": contents.functions,
            "codeFiles": contents.digests.len(),
            "codeBytes": summary.code_bytes,
            "schema": contents.schema,
            "boot": contents.boot,
            "madeAtMs": summary.made_at.map(|at| at.0),
            "unfinished": contents.unfinished,
        })
        .to_string(),
    )?;
    Ok(Exit::Success)
}

/// Turns very many small steps into a few lines.
struct Lines<'a> {
    progress: &'a Progress,
    said: u32,
    code_said: bool,
}

impl<'a> Lines<'a> {
    fn new(progress: &'a Progress) -> Self {
        Self {
            progress,
            said: 0,
            code_said: false,
        }
    }

    fn tell(&mut self, done: Done) {
        match done {
            Done::Code { total, .. } if !self.code_said => {
                self.code_said = true;
                self.progress
                    .next_step(&format!("copying {total} files of wasm"));
            }
            Done::Code { .. } => {}
            Done::Database(pages) => {
                let tenths = LINES_MAX.saturating_mul(pages.done) / pages.total.max(1);
                if tenths > self.said {
                    self.said = tenths;
                    self.progress.next_step(&format!(
                        "database: {} of {} pages",
                        pages.done, pages.total
                    ));
                }
            }
            Done::Checking => self.progress.next_step("checking the copy"),
        }
    }
}
