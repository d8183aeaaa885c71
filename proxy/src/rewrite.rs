//! What becomes of a request's target before a Kit service sees it.

use gantry_model::{Service, selector};
use http::{Uri, uri::PathAndQuery};

use crate::{answer::Failure, forward::Downstreams};

/// Puts into the query which instance of a Kit service the hostname named.
pub(crate) fn select(
    (service, index): (Service, u16),
    request: Downstreams<'_>,
) -> Result<(), Failure> {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    // `*` is no place of a service.
    if target.starts_with('/')
        && let Some(target) = selector::select(service, index, target)
    {
        // What is valid stays so, but may become too long.
        let target = PathAndQuery::try_from(target).or(Err(Failure::HeadTooLarge))?;
        *request.uri_mut() = Uri::from(target);
    }
    Ok(())
}
