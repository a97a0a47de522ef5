//! What a record holds: a session as this crate writes it, sealed if there is a key.

use std::fmt;

use bytes::Bytes;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, KeyInit, Payload as AeadPayload},
};
use serde::{Deserialize, Serialize};

use super::{StoreError, StoreErrorKind, merge::CookieChange};
use crate::session::snapshot::SessionSnapshot;

/// What a record holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    pub(super) session: SessionSnapshot,
    /// Which of its cookies were changed since it was committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<CookieChange>,
}

/// The key that a fleet's records are sealed by, with XChaCha20-Poly1305.
///
/// Every process of a fleet is given the same 32 bytes, drawn at random once. A record is bound to its key's name and its
/// version, so that one cannot be put in another's place.
#[derive(Clone)]
pub struct EncryptionKey(XChaCha20Poly1305);

impl EncryptionKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }
}

/// Without the key.
impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey")
    }
}

/// What every payload of this crate begins with, of whatever format.
const MAGIC: &[u8] = b"tcs";
/// JSON as it is.
const OPEN: u8 = b'1';
/// A nonce, and JSON under the seal.
const SEALED: u8 = b'2';

const NONCE: usize = 24;

/// What a seal is bound to besides the key.
fn bond(key: &str, version: u64) -> Vec<u8> {
    let mut bond = version.to_be_bytes().to_vec();
    bond.extend_from_slice(key.as_bytes());
    bond
}

pub(super) fn write(
    encryption_key: Option<&EncryptionKey>,
    key: &str,
    version: u64,
    content: &Payload,
) -> Bytes {
    let json = serde_json::to_vec(content).expect("a snapshot is JSON");
    let mut payload = Vec::with_capacity(json.len() + 64);
    payload.extend_from_slice(MAGIC);
    match encryption_key {
        None => {
            payload.push(OPEN);
            payload.extend_from_slice(&json);
        }
        Some(EncryptionKey(cipher)) => {
            let nonce = XNonce::generate();
            let sealed = cipher
                .encrypt(&nonce, AeadPayload { msg: &json, aad: &bond(key, version) })
                .expect("a snapshot is not too long to be sealed");
            payload.push(SEALED);
            payload.extend_from_slice(&nonce);
            payload.extend_from_slice(&sealed);
        }
    }
    payload.into()
}

pub(super) fn read(
    encryption_key: Option<&EncryptionKey>,
    key: &str,
    version: u64,
    payload: &[u8],
) -> Result<Payload, StoreError> {
    let refuse = |kind| Err(StoreError::new(kind).at_key(key));
    let Some((&format, rest)) = payload.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
        return refuse(StoreErrorKind::Corrupt);
    };
    let opened;
    let json = match (format, encryption_key) {
        (OPEN, None) => rest,
        (SEALED, Some(EncryptionKey(cipher))) => {
            let Some((nonce, sealed)) = rest.split_at_checked(NONCE) else {
                return refuse(StoreErrorKind::Corrupt);
            };
            let nonce = XNonce::try_from(nonce).expect("it is as long as a nonce");
            match cipher.decrypt(&nonce, AeadPayload { msg: sealed, aad: &bond(key, version) }) {
                Ok(json) => opened = json,
                Err(_) => return refuse(StoreErrorKind::DecryptionFailed),
            }
            &opened
        }
        (OPEN, Some(_)) | (SEALED, None) => return refuse(StoreErrorKind::DecryptionFailed),
        _ => return refuse(StoreErrorKind::UnsupportedFormat),
    };
    // What serde says may quote a value, and is not passed on.
    serde_json::from_slice(json).or_else(|_| refuse(StoreErrorKind::Corrupt))
}
