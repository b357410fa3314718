//! Points in time and lengths of time, both in milliseconds.

use std::{fmt, ops, str::FromStr};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, on Setpoint's own clock: it starts at the wall clock, advances with
/// CLOCK_BOOTTIME and never goes back, so a step of the wall clock moves no deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub const ZERO: Self = Self(0);

    /// Time from `earlier` until `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Millis> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Millis) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl ops::Sub<Millis> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Millis) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T09:30:00.250Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = ((self.0 / 86_400_000) as i64, self.0 % 86_400_000);
        // Civil date from days since 1970-01-01 (Howard Hinnant's algorithm).
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
    }
}

/// A length of time in milliseconds. Written `500ms`, `30s`, `5m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a duration: write a whole number and a unit, such as 500ms, 30s, 5m, 2h or 7d")]
pub struct InvalidDuration(String);

impl Millis {
    pub const ZERO: Self = Self(0);
    /// No declared duration is longer: a year says "never" as well as an overflow would.
    pub const MAX: Self = Self(366 * 86_400_000);

    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    pub const fn mins(mins: u64) -> Self {
        Self(mins * 60_000)
    }

    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl FromStr for Millis {
    type Err = InvalidDuration;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(s.chars().take(40).collect());
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = s[..digits].parse().map_err(|_| invalid())?;
        let unit = match &s[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(invalid()),
        };
        let ms = number.checked_mul(unit).filter(|ms| *ms <= Self::MAX.0).ok_or_else(invalid)?;
        Ok(Self(ms))
    }
}

crate::text::serde_as_text!(Millis);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(951_782_400_250).to_string(), "2000-02-29T00:00:00.250Z");
        assert_eq!(Timestamp(1_795_253_400_000).to_string(), "2026-11-21T09:30:00.000Z");
    }

    #[test]
    fn durations_survive_their_text_form() {
        for ms in [0, 1, 500, 1000, 1500, 30_000, 60_000, 90_000, 3_600_000, 86_400_000] {
            assert_eq!(Millis(ms).to_string().parse(), Ok(Millis(ms)));
        }
    }

    #[test]
    fn a_duration_needs_a_whole_number_and_a_unit() {
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "99999999999999999999s", "9999999d", "1S", "é"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }
}
