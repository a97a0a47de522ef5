//! The name of a session.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use super::{IdentityInner, Session, SessionInner};

/// The name of a session: any text, or an integer, which is the same name as its decimal digits.
///
/// Put one into a request's extensions to say which session the request belongs to.
///
/// ```
/// use tower_client_sessions::SessionId;
///
/// let request = http::Request::get("https://shop.example/").extension(SessionId::from("alice")).body(())?;
/// assert_eq!(SessionId::from(7_u32), SessionId::from("7"));
/// assert_ne!(SessionId::from("07"), SessionId::from("7"));
/// # drop(request);
/// # Ok::<(), http::Error>(())
/// ```
///
/// # Clone
///
/// Cloning allocates nothing.
#[derive(Clone)]
pub struct SessionId {
    name: IdRepr,
    /// Below the session layer, whom the request goes under: the extension is there anyway, so that a send allocates nothing to
    /// say so. A copy that somebody keeps holds no session in use.
    attach: (Weak<SessionInner>, Weak<IdentityInner>),
}

/// One name has one representation: text that is the decimal form of a number is held as the number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IdRepr {
    Number(u64),
    Text(Arc<str>),
}

/// Nothing tells the two kinds apart: should a number and a text have one hash, they are still not equal.
impl Hash for IdRepr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Number(number) => state.write_u64(*number),
            Self::Text(text) => text.hash(state),
        }
    }
}

impl SessionId {
    fn named(name: IdRepr) -> Self {
        Self { name, attach: (Weak::new(), Weak::new()) }
    }

    pub(super) fn name(&self) -> &IdRepr {
        &self.name
    }

    /// The session and the identity that were seated here, unless both are gone.
    pub(crate) fn attached(&self) -> Option<(Arc<SessionInner>, Arc<IdentityInner>)> {
        let (session, inner) = &self.attach;
        Some((session.upgrade()?, inner.upgrade()?))
    }

    pub(crate) fn attach(&mut self, session: &Session, inner: &Arc<IdentityInner>) {
        self.attach = (Arc::downgrade(&session.0), Arc::downgrade(inner));
    }

    fn from_text(text: &str) -> Option<u64> {
        let digits = text.as_bytes();
        let canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.iter().all(u8::is_ascii_digit);
        if canonical { text.parse().ok() } else { None }
    }
}

impl From<&str> for SessionId {
    fn from(text: &str) -> Self {
        Self::named(Self::from_text(text).map_or_else(|| IdRepr::Text(text.into()), IdRepr::Number))
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
        Self::named(id.name.clone())
    }
}

macro_rules! from_integers {
    ($($unsigned:ty)*; $($signed:ty)*) => {
        $(
            impl From<$unsigned> for SessionId {
                fn from(number: $unsigned) -> Self {
                    Self::named(IdRepr::Number(number as u64))
                }
            }
        )*
        $(
            impl From<$signed> for SessionId {
                fn from(number: $signed) -> Self {
                    u64::try_from(number).map_or_else(|_| Self::from(number.to_string()), |number| Self::named(IdRepr::Number(number)))
                }
            }
        )*
    };
}

from_integers!(u8 u16 u32 u64 usize; i8 i16 i32 i64 isize);

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            IdRepr::Number(number) => number.fmt(f),
            IdRepr::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            IdRepr::Number(number) => write!(f, "SessionId({number})"),
            IdRepr::Text(text) => write!(f, "SessionId({text:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_and_its_digits_are_one_name() {
        for number in [0, 1, 42, u64::MAX] {
            assert_eq!(SessionId::from(number), SessionId::from(number.to_string()));
            assert_eq!(SessionId::from(number).to_string(), number.to_string());
        }
        assert_eq!(SessionId::from(-5), SessionId::from("-5"));
        for text in ["", "00", "01", "+1", " 1", "18446744073709551616", "٣"] {
            assert_eq!(SessionId::from(text).to_string(), text);
            assert!(matches!(SessionId::from(text).name, IdRepr::Text(_)), "{text:?}");
        }
    }
}
