//! Which part of a file is asked for. One range is served; more than one gets the whole file, which is allowed
//! and cannot be used to make the edge send a file many times over.

use http::{
    HeaderMap,
    header::{IF_RANGE, RANGE},
};

use super::lookup::Entity;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Both inclusive.
    Range {
        first: u64,
        last: u64,
    },
    Unsatisfiable,
}

pub fn evaluate(headers: &HeaderMap, entity: &Entity) -> Part {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    if !is_fresh(headers, entity) {
        return Part::Whole;
    }
    range.to_str().map_or(Part::Whole, |range| part(range, entity.size))
}

/// `If-Range` holds for our strong tag, or for exactly our date.
fn is_fresh(headers: &HeaderMap, entity: &Entity) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    text == entity.etag || httpdate::parse_http_date(text).is_ok_and(|date| date == entity.modified)
}

/// What is no valid range is ignored, as RFC 9110 wants it.
fn part(text: &str, size: u64) -> Part {
    let Some((unit, range)) = text.split_once('=') else { return Part::Whole };
    if !unit.eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Part::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    match (number(first), number(last), first.is_empty(), last.is_empty()) {
        (None, Some(suffix), true, false) => suffix_of(suffix, size),
        (Some(first), None, false, true) => from(first, u64::MAX, size),
        (Some(first), Some(last), false, false) if first <= last => from(first, last, size),
        _ => Part::Whole,
    }
}

fn from(first: u64, last: u64, size: u64) -> Part {
    if first >= size { Part::Unsatisfiable } else { Part::Range { first, last: last.min(size - 1) } }
}

fn suffix_of(length: u64, size: u64) -> Part {
    if length == 0 || size == 0 {
        Part::Unsatisfiable
    } else {
        Part::Range { first: size.saturating_sub(length), last: size - 1 }
    }
}

/// Digits alone; a number too large for us is larger than any file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ranges() {
        let range = |first, last| Part::Range { first, last };
        for (text, expected) in [
            ("bytes=0-0", range(0, 0)),
            ("bytes=0-9", range(0, 9)),
            ("bytes=2-", range(2, 9)),
            ("bytes=2-100", range(2, 9)),
            ("Bytes=2-3", range(2, 3)),
            ("bytes=-3", range(7, 9)),
            ("bytes=-100", range(0, 9)),
            ("bytes=0-99999999999999999999999", range(0, 9)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-20", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=1", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes", Part::Whole),
        ] {
            assert_eq!(part(text, 10), expected, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(part("bytes=-1", 0), Part::Unsatisfiable);
    }
}
