//! Session ids.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use super::{IdentityInner, Session, SessionInner};

/// The id of a session: text, or an integer, which equals its decimal digits.
///
/// Put one into a request's extensions to select the request's session.
///
/// # Clone
///
/// Cloning does not allocate.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::SessionId;
///
/// let id = SessionId::from("alice");
/// let request = http::Request::get("https://shop.example/").extension(id).body(())?;
/// assert_eq!(SessionId::from(7_u32), SessionId::from("7"));
/// assert_ne!(SessionId::from("07"), SessionId::from("7"));
/// # drop(request);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
pub struct SessionId {
    repr: IdRepr,
    /// The identity of the request that has this id in its extensions, set by the session layer.
    /// The extension exists anyway, so this allocates nothing. A kept copy does not keep the
    /// session in use.
    attached: Weak<IdentityInner>,
}

/// One id has one representation: text in the decimal form of a number is stored as the number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IdRepr {
    Number(u64),
    Text(Arc<str>),
}

/// Without the discriminant: a number and a text may share a hash, and are still not equal.
impl Hash for IdRepr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Number(number) => state.write_u64(*number),
            Self::Text(text) => text.hash(state),
        }
    }
}

impl SessionId {
    fn new(repr: IdRepr) -> Self {
        Self { repr, attached: Weak::new() }
    }

    pub(super) fn repr(&self) -> &IdRepr {
        &self.repr
    }

    /// The attached session and identity, if they still exist.
    pub(crate) fn attached(&self) -> Option<(Arc<SessionInner>, Arc<IdentityInner>)> {
        let inner = self.attached.upgrade()?;
        Some((inner.session()?, inner))
    }

    pub(crate) fn attach(&mut self, session: &Session, inner: &Arc<IdentityInner>) {
        inner.set_session(&session.0);
        self.attached = Arc::downgrade(inner);
    }

    fn parse_number(text: &str) -> Option<u64> {
        let digits = text.as_bytes();
        let canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.iter().all(u8::is_ascii_digit);
        if canonical { text.parse().ok() } else { None }
    }
}

impl From<&str> for SessionId {
    fn from(text: &str) -> Self {
        Self::new(Self::parse_number(text).map_or_else(|| IdRepr::Text(text.into()), IdRepr::Number))
    }
}

impl From<String> for SessionId {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for SessionId {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&SessionId> for SessionId {
    fn from(id: &SessionId) -> Self {
        Self::new(id.repr.clone())
    }
}

macro_rules! from_integers {
    ($($unsigned:ty)*; $($signed:ty)*) => {
        $(
            impl From<$unsigned> for SessionId {
                fn from(number: $unsigned) -> Self {
                    Self::new(IdRepr::Number(number as u64))
                }
            }
        )*
        $(
            impl From<$signed> for SessionId {
                fn from(number: $signed) -> Self {
                    u64::try_from(number).map_or_else(|_| Self::from(number.to_string()), |number| Self::new(IdRepr::Number(number)))
                }
            }
        )*
    };
}

from_integers!(u8 u16 u32 u64 usize; i8 i16 i32 i64 isize);

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.repr == other.repr
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.repr.hash(state);
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.repr.cmp(&other.repr)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repr {
            IdRepr::Number(number) => number.fmt(f),
            IdRepr::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repr {
            IdRepr::Number(number) => write!(f, "SessionId({number})"),
            IdRepr::Text(text) => write!(f, "SessionId({text:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_equals_its_decimal_digits() {
        for number in [0, 1, 42, u64::MAX] {
            assert_eq!(SessionId::from(number), SessionId::from(number.to_string()));
            assert_eq!(SessionId::from(number).to_string(), number.to_string());
        }
        assert_eq!(SessionId::from(-5), SessionId::from("-5"));
        for text in ["", "00", "01", "+1", " 1", "18446744073709551616", "٣"] {
            assert_eq!(SessionId::from(text).to_string(), text);
            assert!(matches!(SessionId::from(text).repr, IdRepr::Text(_)), "{text:?}");
        }
    }
}
