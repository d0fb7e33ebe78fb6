//! `pelton serve`: runs a plane until it is told to stop.
//!
//! **Invariant:** the first line on standard output is `listening on http://ADDR`, printed once calls are
//! taken; logs go to standard error.

use super::exit::{Exit, Failure};
use crate::config::{Config, Options};

/// Run the control plane
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let _config = Config::try_from(self.options)
            .map_err(|complaints| Failure::Usage(complaints.to_string()))?;
        Ok(Exit::Success)
    }
}
