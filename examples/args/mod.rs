//! What the command lines of the examples have in common.

use std::{fmt::Display, str::FromStr};

use lexopt::{Parser, ValueExt};
use tower::BoxError;

/// The value of an option that is a number.
pub(crate) fn number<T>(parser: &mut Parser, option: &str, least: T) -> Result<T, BoxError>
where
    T: FromStr + PartialOrd + Display,
{
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => {
            Err(format!("{option} {text:?}: give a whole number, at least {least} and not too large").into())
        }
    }
}
