//! Finds errors of one type in the chain of sources of an error.

use std::{error::Error, iter};

/// Returns the errors of type `E` among `error` and its sources, outermost first.
pub(crate) fn errors_of_type<'e, E>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e E>
where
    E: Error + 'static,
{
    iter::successors(Some(error), |&error| error.source()).filter_map(|error| error.downcast_ref())
}
