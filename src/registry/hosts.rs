//! Who owns which host name.
//!
//! Functions are changed side by side, so a name is taken before the change that wants it is committed, and
//! given back if that fails.
//!
//! **Invariant:** a host name is one function's or nobody's.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use super::{Error, Registry};
use crate::model::{FunctionName, HostName};

/// Host names that a change has taken. Those that it wanted are given back when it fails, those that it does
/// not want any more when it succeeds.
pub(super) struct TakenHosts<'a> {
    registry: &'a Registry,
    name: FunctionName,
    new: BTreeSet<HostName>,
    old: BTreeSet<HostName>,
}

impl Registry {
    /// Takes the host names that a function is to have instead of those that it has.
    ///
    /// # Errors
    /// [`Error::HostTaken`], with all that are another's.
    pub(super) fn take_hosts(
        &self,
        name: &FunctionName,
        before: &BTreeSet<HostName>,
        wanted: &BTreeSet<HostName>,
    ) -> Result<TakenHosts<'_>, Error> {
        let mut owners = self.host_owners();
        let others: Vec<_> = wanted
            .iter()
            .filter_map(|host| {
                let owner = owners.get(host).filter(|owner| *owner != name)?;
                Some(format!("{host} is {owner}'s"))
            })
            .collect();
        if !others.is_empty() {
            return Err(Error::HostTaken(format!(
                "a host name belongs to one function: {}; take it away there first",
                others.join(", ")
            )));
        }
        let new: BTreeSet<_> = wanted.difference(before).cloned().collect();
        owners.extend(new.iter().map(|host| (host.clone(), name.clone())));
        Ok(TakenHosts {
            registry: self,
            name: name.clone(),
            new,
            old: before.difference(wanted).cloned().collect(),
        })
    }

    /// Gives host names back.
    pub(super) fn let_hosts_go(&self, name: &FunctionName, hosts: &BTreeSet<HostName>) {
        let mut owners = self.host_owners();
        for host in hosts {
            if owners.get(host) == Some(name) {
                owners.remove(host);
            }
        }
    }

    fn host_owners(&self) -> MutexGuard<'_, HashMap<HostName, FunctionName>> {
        let owners = self.inner.hosts.lock();
        owners.unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenHosts<'_> {
    /// The change is committed and shown.
    pub(super) fn keep(mut self) {
        self.new = std::mem::take(&mut self.old);
    }
}

impl Drop for TakenHosts<'_> {
    fn drop(&mut self) {
        self.registry.let_hosts_go(&self.name, &self.new);
    }
}
