//! Pages of lists.

use serde::Serialize;
use utoipa::ToSchema;

/// Where a page lies in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Pagination {
    /// How many entries the whole list has.
    total: u64,
    /// This page, from 1.
    page: u32,
    /// The most entries of a page.
    limit: u32,
    /// How many pages there are; 0 when the list is empty.
    #[serde(rename = "totalPages")]
    total_pages: u64,
}

impl Pagination {
    /// `limit` is at least 1.
    pub(crate) fn new(total: u64, page: u32, limit: u32) -> Self {
        Self { total, page, limit, total_pages: total.div_ceil(u64::from(limit.max(1))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_may_be_partly_filled() {
        for (total, limit, want) in [(0, 10, 0), (1, 10, 1), (10, 10, 1), (11, 10, 2)] {
            assert_eq!(Pagination::new(total, 1, limit).total_pages, want, "{total} by {limit}");
        }
    }
}
