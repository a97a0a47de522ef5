//! The payload of a record: a session as JSON, encrypted if there is a key.

use std::fmt;

use bytes::Bytes;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, KeyInit, Payload as AeadPayload},
};
use serde::{Deserialize, Serialize};

use super::{StoreError, StoreErrorKind, merge::CookieChange};
use crate::session::snapshot::SessionSnapshot;

/// The content of a record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    pub(super) session: SessionSnapshot,
    /// The cookies that were changed since the version was committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<CookieChange>,
}

/// A key that encrypts the records of a fleet, with XChaCha20-Poly1305.
///
/// All processes of a fleet use the same 32 random bytes. The ciphertext is bound to the name and
/// the version of its record, so that it cannot be moved to another record.
#[derive(Clone)]
pub struct EncryptionKey(XChaCha20Poly1305);

impl EncryptionKey {
    /// Creates a key from its bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }
}

/// Omits the key.
impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey")
    }
}

/// The first bytes of every payload, in every format.
const MAGIC: &[u8] = b"tcs";
/// The format of plain JSON.
const PLAIN: u8 = b'1';
/// The format of a nonce and encrypted JSON.
const ENCRYPTED: u8 = b'2';

const NONCE_LEN: usize = 24;

/// The associated data of the encryption.
fn associated_data(key: &str, version: u64) -> Vec<u8> {
    let mut data = version.to_be_bytes().to_vec();
    data.extend_from_slice(key.as_bytes());
    data
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
            payload.push(PLAIN);
            payload.extend_from_slice(&json);
        }
        Some(EncryptionKey(cipher)) => {
            let nonce = XNonce::generate();
            let ciphertext = cipher
                .encrypt(&nonce, AeadPayload { msg: &json, aad: &associated_data(key, version) })
                .expect("a snapshot is not too long for the cipher");
            payload.push(ENCRYPTED);
            payload.extend_from_slice(&nonce);
            payload.extend_from_slice(&ciphertext);
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
    let fail = |kind| Err(StoreError::new(kind).at_key(key));
    let Some((&format, rest)) = payload.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
        return fail(StoreErrorKind::Corrupt);
    };
    let decrypted;
    let json = match (format, encryption_key) {
        (PLAIN, None) => rest,
        (ENCRYPTED, Some(EncryptionKey(cipher))) => {
            let Some((nonce, ciphertext)) = rest.split_at_checked(NONCE_LEN) else {
                return fail(StoreErrorKind::Corrupt);
            };
            let nonce = XNonce::try_from(nonce).expect("it has the length of a nonce");
            match cipher.decrypt(&nonce, AeadPayload { msg: ciphertext, aad: &associated_data(key, version) })
            {
                Ok(json) => decrypted = json,
                Err(_) => return fail(StoreErrorKind::DecryptionFailed),
            }
            &decrypted
        }
        (PLAIN, Some(_)) | (ENCRYPTED, None) => return fail(StoreErrorKind::DecryptionFailed),
        _ => return fail(StoreErrorKind::UnsupportedFormat),
    };
    // The error of serde may quote a value, so it is dropped.
    serde_json::from_slice(json).or_else(|_| fail(StoreErrorKind::Corrupt))
}
