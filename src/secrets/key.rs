//! The key that secrets are encrypted with: read from text, and never printed.
//!
//! Each secret is sealed by ChaCha20-Poly1305 under a nonce of its own, which is random: with one key that holds for
//! billions of secrets. Its name is sealed with it, so that one secret's bytes are worth nothing under another name.
//!
//! **Invariant:** what was not sealed by this key under this name does not open.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::model::{SecretName, SecretValue};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// The form of what is sealed, its first byte.
const FORM: u8 = 1;
/// Goes before the name in what is sealed with a secret.
const PURPOSE: &str = "pelton secret ";

/// Base64 as people have it: padded or not.
const fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}
const STANDARD: GeneralPurpose = lenient(&alphabet::STANDARD);
const URL_SAFE: GeneralPurpose = lenient(&alphabet::URL_SAFE);

/// A key.
#[derive(Clone)]
pub struct Key(LessSafeKey);

/// Text that is no key. It is not repeated: it may be one that was only mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no key: it has to be 32 random bytes in base64 or in hexadecimal digits, as `openssl rand -base64 32` \
     prints them"
)]
pub struct InvalidKey;

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let bytes = Zeroizing::new(if text.len() == 2 * KEY_BYTES {
            hexadecimal(text).ok_or(InvalidKey)?
        } else {
            STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE.decode(text))
                .map_err(|_| InvalidKey)?
        });
        if bytes.len() != KEY_BYTES {
            return Err(InvalidKey);
        }
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| InvalidKey)?;
        Ok(Self(LessSafeKey::new(key)))
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| (*byte as char).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| u8::try_from(digit(&pair[0])? * 16 + digit(&pair[1])?).ok())
        .collect()
}

impl Key {
    /// A key that nobody else has, for secrets that go with this process.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn random() -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill(&mut *bytes)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*bytes);
        key.map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| "a key could not be made".to_owned())
    }

    /// Encrypts a value for keeping.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(super) fn seal(&self, name: &SecretName, value: &SecretValue) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let mut text = value.expose().as_bytes().to_vec();
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), about(name), &mut text)
            .map_err(|_| "a secret could not be encrypted".to_owned())?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len() + tag.as_ref().len());
        sealed.push(FORM);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The value that was sealed; nothing if it was not sealed by this key under this name.
    pub(super) fn open(&self, name: &SecretName, sealed: &[u8]) -> Option<SecretValue> {
        let [FORM, rest @ ..] = sealed else {
            return None;
        };
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, about(name), &mut text).ok()?;
        let value = std::str::from_utf8(opened).ok()?;
        Some(SecretValue::new(value.to_owned()))
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), String> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| "the system has no random bytes".to_owned())
}

fn about(name: &SecretName) -> Aad<String> {
    Aad::from(format!("{PURPOSE}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_under_the_same_name_only() {
        let value = SecretValue::new("hunter2 \u{fc}\n".to_owned());
        let sealed = key(ONE).seal(&name("a"), &value).unwrap();
        let opened = |key: Key, as_name: &str, sealed: &[u8]| {
            key.open(&name(as_name), sealed)
                .map(|value| value.expose().to_owned())
        };
        assert_eq!(
            opened(key(ONE), "a", &sealed).as_deref(),
            Some(value.expose())
        );
        assert_eq!(opened(key(ONE), "b", &sealed), None);
        assert_eq!(opened(key(TWO), "a", &sealed), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(opened(key(ONE), "a", &damaged), None, "byte {at}");
            assert_eq!(opened(key(ONE), "a", &sealed[..at]), None, "cut at {at}");
        }
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(key(ONE).seal(&name("a"), &value).unwrap(), sealed);
    }

    #[test]
    fn keys_are_read_as_tools_print_them() {
        let bytes = [0xfb; 32];
        let texts = [
            "FB".repeat(32),
            STANDARD.encode(bytes),
            URL_SAFE.encode(bytes),
            format!(" {}\n", STANDARD.encode(bytes).trim_end_matches('=')),
        ];
        let sealed = key(&texts[0])
            .seal(&name("a"), &SecretValue::new("v".to_owned()))
            .unwrap();
        for text in &texts {
            assert!(key(text).open(&name("a"), &sealed).is_some(), "{text}");
        }
        for wrong in [
            "",
            "short",
            &"g".repeat(64),
            &"ab".repeat(31),
            &STANDARD.encode([1; 33]),
        ] {
            let refused = wrong.parse::<Key>().map(drop).unwrap_err();
            assert!(!refused.to_string().contains("short"));
        }
        assert_eq!(format!("{:?}", key(ONE)), "Key(…)");
    }
}
