//! What several subjects share.

pub(crate) mod api;
pub(crate) mod binary;
pub(crate) mod guests;
