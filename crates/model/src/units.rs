//! Sizes in bytes.

use std::{fmt, str::FromStr};

/// A number of bytes. Written `64MiB`, `1GiB`, `512KiB`, `100B`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a size: write a whole number and a unit, such as 512KiB, 64MiB or 1GiB")]
pub struct InvalidSize(String);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl FromStr for Bytes {
    type Err = InvalidSize;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSize(s.chars().take(40).collect());
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = s[..digits].parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS.into_iter().find(|(unit, _)| *unit == &s[digits..]).ok_or_else(invalid)?;
        number.checked_mul(factor).filter(|b| *b <= 1 << 60).map(Self).ok_or_else(invalid)
    }
}

crate::text::serde_as_text!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_survive_their_text_form() {
        for bytes in [0, 1, 1024, 1536, 64 << 20, 3 << 30] {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
    }

    #[test]
    fn a_size_needs_a_whole_number_and_a_unit() {
        for bad in ["", "5", "MiB", "1.5GiB", "-1B", "64MB", "99999999999999999999GiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
