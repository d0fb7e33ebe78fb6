//! What several subjects share.

pub(crate) mod api;
pub(crate) mod binary;
pub(crate) mod bytes;
pub(crate) mod guests;
pub(crate) mod heap;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod probes;
pub(crate) mod programs;
pub(crate) mod raw;
pub(crate) mod service;
pub(crate) mod site;
pub(crate) mod web_guests;
pub(crate) mod world;
