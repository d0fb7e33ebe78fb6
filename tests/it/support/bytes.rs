//! Bytes as an enemy or an accident makes them: something valid that was damaged, or nothing that ever was.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Pieces that parsers stumble over.
const TOKENS: [&[u8]; 24] = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\r\n--cut\r\n",
    b"\r\n--cut--\r\n",
    b"--cut",
    b"content-disposition: form-data; name=\"spec\"\r\n\r\n",
    b"{",
    b"}",
    b"[[[[[[[[",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999999",
    b"\0asm\x01\0\0\0",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x80",
    b"%00%ff%",
];

/// One thing that happens to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let token = select(&TOKENS[..]).prop_map(<[u8]>::to_vec);
        prop_oneof![
            3 => (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Self::Flip(at, bits)),
            3 => (any::<Index>(), token).prop_map(|(at, token)| Self::Insert(at, token)),
            1 => (any::<Index>(), vec(any::<u8>(), 1..40))
                .prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            1 => any::<Index>().prop_map(Self::Cut),
            1 => (any::<Index>(), 1..64_usize).prop_map(|(at, count)| Self::Remove(at, count)),
            1 => (any::<Index>(), 1..64_usize).prop_map(|(at, count)| Self::Repeat(at, count)),
        ]
    }

    fn happens_to(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len() + 1;
        let range = |at: &Index, count: usize| {
            let from = at.index(length);
            from..(from + count).min(length - 1)
        };
        match self {
            Self::Flip(at, bits) => {
                if let Some(byte) = bytes.get_mut(at.index(length)) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Remove(at, count) => drop(bytes.drain(range(at, *count))),
            Self::Repeat(at, count) => {
                let again = bytes[range(at, *count)].to_vec();
                let at = at.index(length);
                bytes.splice(at..at, again);
            }
        }
    }
}

/// One of these, damaged a little; sometimes bytes that were never anything.
pub(crate) fn damaged(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let broken = (select(samples), vec(Damage::any(), 0..6)).prop_map(|(mut bytes, damages)| {
        for damage in damages {
            damage.happens_to(&mut bytes);
        }
        bytes
    });
    prop_oneof![
        8 => broken,
        1 => vec(any::<u8>(), 0..400),
    ]
}
