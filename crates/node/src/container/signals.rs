//! Signals as engines and images name them.

use model::spec::{Signal, StopPolicy};

/// What a container is asked to end with: as declared, or else as its image asks.
pub fn of_stop<'a>(declared: &StopPolicy, image: Option<&'a str>) -> &'a str {
    declared.signal.map(name).or(image).unwrap_or("SIGTERM")
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Term => "SIGTERM",
        Signal::Int => "SIGINT",
        Signal::Quit => "SIGQUIT",
        Signal::Hup => "SIGHUP",
        Signal::Usr1 => "SIGUSR1",
        Signal::Usr2 => "SIGUSR2",
        Signal::Kill => "SIGKILL",
    }
}

/// The number of `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`; `None` for what is no signal.
pub fn number(name: &str) -> Option<i32> {
    const REAL_TIME: i32 = 34;
    const LAST: i32 = 64;
    let valid = |number: &i32| (1..=LAST).contains(number);
    if let Ok(number) = name.parse() {
        return Some(number).filter(valid);
    }
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "ALRM" => libc::SIGALRM,
        "TERM" => libc::SIGTERM,
        "CONT" => libc::SIGCONT,
        "WINCH" => libc::SIGWINCH,
        "PWR" => libc::SIGPWR,
        "RTMIN" => REAL_TIME,
        "RTMAX" => LAST,
        _ => {
            let above = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<u8>().ok());
            let below = name.strip_prefix("RTMAX-").and_then(|n| n.parse::<u8>().ok());
            let real_time = |number: &i32| (REAL_TIME..=LAST).contains(number);
            return above
                .map(|n| REAL_TIME + i32::from(n))
                .or(below.map(|n| LAST - i32::from(n)))
                .filter(real_time);
        }
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_images_write_is_understood_and_anything_else_is_no_signal() {
        for (name, expected) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("3", Some(3)),
            ("SIGWINCH", Some(28)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("SIGNOTHING", None),
            ("", None),
            ("0", None),
            ("-9", None),
            ("65", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
