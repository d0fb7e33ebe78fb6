//! The parts of a bundle made smaller, in the block format of LZ4: calls of one function resemble each other, and
//! what is not written need be neither copied, summed up, synced nor checkpointed.
//!
//! **Invariant:** unpacking takes no more memory than the packed bytes could have been made of, whatever they say.

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::{Unreadable, damaged};

/// Parts that are shorter are not packed, in bytes: what would be saved is less than a page.
const BYTES_MIN: usize = 1024;
/// What a byte of the format stands for, at most: a match goes on for 255 bytes with each byte more.
const RATIO_MAX: usize = 255;
/// Output that has grown beyond this is not kept for the next bundle, in bytes.
const OUTPUT_BYTES_KEPT: usize = 512 * 1024;

/// Packs one bundle after another in the same memory.
pub(super) struct Packer {
    table: CompressTable,
    output: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            // Most bundles are of this size.
            table: CompressTable::large(),
            output: Vec::new(),
        }
    }
}

impl Packer {
    /// `head`, and `parts` packed, if that is at least an eighth less.
    pub(super) fn pack(&mut self, head: &[u8], parts: &[u8]) -> Option<&[u8]> {
        if parts.len() < BYTES_MIN {
            return None;
        }
        let needed = head.len() + get_maximum_output_size(parts.len());
        if self.output.len() > OUTPUT_BYTES_KEPT && needed <= OUTPUT_BYTES_KEPT {
            self.output = Vec::new();
        }
        if self.output.len() < needed {
            self.output.resize(needed, 0);
        }
        let (front, room) = self.output.split_at_mut_checked(head.len())?;
        front.copy_from_slice(head);
        let packed = compress_into_with_table(parts, room, &mut self.table).ok()?;
        if packed > parts.len() - parts.len() / 8 {
            return None;
        }
        self.output.get(..head.len() + packed)
    }
}

/// What was packed, of which there were `bytes`.
///
/// # Errors
/// It is something else, or was longer or shorter.
pub(super) fn unpack(packed: &[u8], bytes: usize) -> Result<Vec<u8>, Unreadable> {
    if bytes > packed.len().saturating_mul(RATIO_MAX) {
        return Err(damaged());
    }
    let mut parts = vec![0; bytes];
    match decompress_into(packed, &mut parts) {
        Ok(unpacked) if unpacked == bytes => Ok(parts),
        Ok(_) | Err(_) => Err(damaged()),
    }
}
