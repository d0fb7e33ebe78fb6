//! What several subjects share.

pub(crate) mod api;
pub(crate) mod guests;
