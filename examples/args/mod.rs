//! Helpers for the command lines of the examples.

use std::{fmt::Display, str::FromStr};

use lexopt::{Parser, ValueExt};
use tower::BoxError;

/// Parses the value of an option as a number.
pub(crate) fn number<T>(parser: &mut Parser, option: &str, min: T) -> Result<T, BoxError>
where
    T: FromStr + PartialOrd + Display,
{
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if number >= min => Ok(number),
        _ => Err(format!("{option} {text:?}: use an integer of at least {min}").into()),
    }
}
