//! Text for a terminal: nothing from outside reaches it raw.
//!
//! Names, messages and logs are other people's bytes. A control character in them could move the cursor, recolour or
//! retitle the terminal of whoever looks; here they become `\x1b` and the like.

use std::io::IsTerminal;

use model::{Millis, Timestamp};

/// One line: every control character escaped, line breaks and tabs too.
pub fn line(text: &str) -> String {
    escape(text, &[])
}

/// Several lines: line breaks and tabs stay.
pub fn lines(text: &str) -> String {
    escape(text, &['\n', '\t'])
}

/// A line of a log as it was written, which may be no text at all.
pub fn log_line(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(chunk.valid(), &['\t']));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn escape(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if kept.contains(&c) || !is_hostile(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    out
}

/// Control characters, and those that make text read in another order than it is written.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether to use colour on this stream.
pub fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// How long ago, in the largest unit that still says something: `12s`, `5m`, `3h`, `9d`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).0 / 1000;
    let whole = match seconds {
        0..120 => Millis::secs(seconds),
        120..7200 => Millis::mins(seconds / 60),
        7200..172_800 => Millis::mins(seconds / 3600 * 60),
        _ => Millis::mins(seconds / 86_400 * 1440),
    };
    whole.to_string()
}

/// A size with three digits that say something: `512B`, `1.50MiB`, `23.4GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1023.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match size {
        _ if unit == 0 => format!("{bytes}B"),
        ..9.995 => format!("{size:.2}{}", UNITS[unit]),
        ..99.95 => format!("{size:.1}{}", UNITS[unit]),
        _ => format!("{size:.0}{}", UNITS[unit]),
    }
}

/// The wall clock, for ages alone.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(line("\u{1b}[31mred\u{7}\n\t\r"), r"\x1b[31mred\x07\n\t\r");
        assert_eq!(line("\u{9b}31m\u{7f}"), r"\x9b31m\x7f");
        assert_eq!(line("a\u{202e}b"), r"a\u{202e}b");
        assert_eq!(line("Größe → ok"), "Größe → ok");
    }

    #[test]
    fn lines_keep_their_breaks_and_logs_their_bytes() {
        assert_eq!(lines("a\n\tb\u{1b}"), "a\n\tb\\x1b");
        assert_eq!(log_line(b"ok\t\xff\x1b]0;x\x07"), r"ok	\xff\x1b]0;x\x07");
    }

    #[test]
    fn a_size_has_three_digits() {
        for (size, told) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00KiB"),
            (1536, "1.50KiB"),
            (10 << 20, "10.0MiB"),
            ((1 << 30) - 1, "1.00GiB"),
            (256 << 20, "256MiB"),
            (u64::MAX, "16777216TiB"),
        ] {
            assert_eq!(bytes(size), told);
        }
    }

    #[test]
    fn an_age_is_told_in_one_unit() {
        let ago = |ms| ago(Timestamp(0), Timestamp(ms));
        assert_eq!(ago(500), "0s");
        assert_eq!(ago(90_500), "90s");
        assert_eq!(ago(3_725_000), "62m");
        assert_eq!(ago(90_000_000), "25h");
        assert_eq!(ago(200_000_000), "2d");
    }
}
