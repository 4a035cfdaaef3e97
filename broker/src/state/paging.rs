//! Which part of a name-sorted table one answer to 21 or 201 carries.

use std::ops::Range;

use rmq_net::body::{self, DataVersion};

/// The paging fields of a request; all absent asks for everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRequest<'a> {
    /// `topicSeq` or `groupSeq`: index of the first wanted entry.
    pub first_index: Option<i32>,
    /// `maxTopicNum` or `maxGroupNum`
    pub count_max: Option<i32>,
    /// `dataVersion` as JSON text; empty on the first page.
    pub data_version: Option<&'a str>,
}

/// The entries to answer, as a range of the sorted table of `total` entries.
///
/// A later page whose version is not the current one starts over at 0. The clients' loop stops
/// when the next index reaches `total - 1` and so would lose a last entry that stands alone: it is
/// added to the page before.
pub fn page_range(
    request: &PageRequest<'_>,
    current: &DataVersion,
    total: usize,
    page_size: Option<usize>,
) -> Range<usize> {
    let asks_for_page = request.first_index.is_some() || request.count_max.is_some() || request.data_version.is_some();
    let Some(page_size) = page_size.filter(|_| asks_for_page) else {
        return 0..total;
    };
    let wanted = request.first_index.and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
    let is_current = request
        .data_version
        .and_then(|text| body::decode::<DataVersion>(text.as_bytes()).ok())
        .is_some_and(|version| version == *current);
    let first = if is_current { wanted.min(total) } else { 0 };
    let count_max =
        request.count_max.and_then(|count| usize::try_from(count).ok()).map_or(page_size, |count| count.min(page_size));
    let end = first.saturating_add(count_max).min(total);
    if count_max > 0 && end + 1 == total { first..total } else { first..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_version_and_lose_no_last_entry() {
        let current = DataVersion { counter: 3, state_version: 0, timestamp: 7 };
        let same = r#"{"counter":3,"stateVersion":0,"timestamp":7}"#;
        let other = r#"{"counter":4,"stateVersion":0,"timestamp":7}"#;
        let page = |first: Option<i32>, count: Option<i32>, version: Option<&str>, total: usize| {
            let request = PageRequest { first_index: first, count_max: count, data_version: version };
            page_range(&request, &current, total, Some(2000))
        };
        assert_eq!(page(None, None, None, 5000), 0..5000);
        assert_eq!(page(Some(0), Some(2000), Some(""), 2600), 0..2000);
        assert_eq!(page(Some(2000), Some(2000), Some(same), 2600), 2000..2600);
        assert_eq!(page(Some(2000), Some(2000), Some(other), 2600), 0..2000);
        assert_eq!(page(Some(2000), Some(2000), Some("junk"), 2600), 0..2000);
        assert_eq!(page(Some(9000), Some(2000), Some(same), 2600), 2600..2600);
        assert_eq!(page(Some(-1), Some(-1), Some(same), 2600), 0..2000);
        assert_eq!(page(Some(0), Some(10_000), None, 2600), 0..2000);
        assert_eq!(page(Some(0), Some(2000), Some(""), 2001), 0..2001);
        let everything = PageRequest { first_index: Some(1), ..PageRequest::default() };
        assert_eq!(page_range(&everything, &current, 9000, None), 0..9000);
    }
}
