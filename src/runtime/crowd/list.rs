//! The instances that have calls in them and may take more, by function.
//!
//! **Invariant:** a call only joins calls of the very version that is its own, with the same secrets, and none that were
//! there before its function changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Call, Crowd, Seat};
use crate::model::{FunctionName, OpenSecret};
use crate::runtime::reuse::are_same;
use crate::runtime::web::Request;

/// All of them.
#[derive(Default)]
pub(in crate::runtime) struct Crowds(Mutex<HashMap<FunctionName, Vec<Arc<Crowd>>>>);

/// A call that joined others, or one for which `open` has begun something.
pub(in crate::runtime) enum Joined<O> {
    /// It is in an instance with others.
    Others(Seat),
    /// It is the first.
    First(Seat, Arc<Crowd>, O),
}

impl Crowds {
    fn lock(&self) -> MutexGuard<'_, HashMap<FunctionName, Vec<Arc<Crowd>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call join others of its version, of which there may be `at_once_max`; the instance that has had calls for
    /// longest comes first, so that the others run empty. If there are none with room, `open` is asked how many calls a
    /// further instance may be given, under the same lock that [`Crowds::retire`] takes.
    pub(in crate::runtime) fn join<O>(
        &self,
        call: Call,
        request: Request,
        at_once_max: u32,
        place_is_wanted: bool,
        open: impl FnOnce() -> (O, u32),
    ) -> Result<Joined<O>, super::Ended> {
        let version = Arc::clone(&call.attempt.version);
        let secrets: Arc<[OpenSecret]> = Arc::clone(&call.attempt.secrets);
        let function = call.attempt.function.clone();
        let (mut call, mut request) = (call, request);
        let mut functions = self.lock();
        let crowds = functions.entry(function).or_default();
        for crowd in crowds.iter() {
            if !Arc::ptr_eq(&crowd.version, &version) || !are_same(&crowd.secrets, &secrets) {
                continue;
            }
            match crowd.join(call, request, place_is_wanted) {
                Ok(seat) => return Ok(Joined::Others(seat)),
                Err(back) => (call, request) = *back,
            }
        }
        let (opened, calls_left) = open();
        let crowd = Arc::new(Crowd::new(&version, &secrets, at_once_max, calls_left));
        crowds.push(Arc::clone(&crowd));
        let seat = crowd.join(call, request, false).map_err(|_| super::Ended)?;
        Ok(Joined::First(seat, crowd, opened))
    }

    /// Lets nobody join who comes to this function from now on those that are there.
    pub(in crate::runtime) fn retire(&self, function: &FunctionName) {
        for crowd in self.lock().remove(function).into_iter().flatten() {
            crowd.close();
        }
    }

    /// The same for all functions.
    pub(in crate::runtime) fn retire_all(&self) {
        for (_, crowds) in self.lock().drain() {
            crowds.iter().for_each(|crowd| crowd.close());
        }
    }

    /// Forgets one that has ended.
    pub(super) fn forget(&self, function: &FunctionName, ended: &Arc<Crowd>) {
        let mut functions = self.lock();
        if let Some(crowds) = functions.get_mut(function) {
            crowds.retain(|crowd| !Arc::ptr_eq(crowd, ended));
            if crowds.is_empty() {
                functions.remove(function);
            }
        }
    }
}
