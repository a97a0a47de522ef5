//! Cookies as they are shown in traces: without their values, unless the user asked for them.

use super::Identity;

/// The names in a `Cookie` header, with values only where they are wanted.
pub(crate) fn shown_header(identity: &Identity, header: &http::HeaderValue) -> String {
    let text = String::from_utf8_lossy(header.as_bytes());
    if identity.session.0.shared.show_values {
        return text.into_owned();
    }
    let names = text.split("; ").map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => String::from("…"),
    });
    names.collect::<Vec<_>>().join("; ")
}

/// A `Set-Cookie` header with its first pair's value only where it is wanted.
pub(crate) fn shown_set_cookie(identity: &Identity, header: &http::HeaderValue) -> String {
    let text = String::from_utf8_lossy(header.as_bytes());
    if identity.session.0.shared.show_values {
        return text.into_owned();
    }
    let (pair, attributes) = text.split_once(';').map_or((&*text, None), |(pair, rest)| (pair, Some(rest)));
    let name = pair.split_once('=').map_or("", |(name, _)| name);
    match attributes {
        Some(attributes) => format!("{name}=…;{attributes}"),
        None => format!("{name}=…"),
    }
}
