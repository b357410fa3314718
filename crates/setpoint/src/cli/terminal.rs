//! The terminal that a command inside an instance is given: this one, raw for as long as it lasts.

use std::io::{IsTerminal, stdin, stdout};

use model::session::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether both ends are a terminal.
pub fn is_there() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// `None`: it does not say.
pub fn size() -> Option<Size> {
    let size = tcgetwinsize(stdout()).ok()?;
    Some(Size { width: size.ws_col, height: size.ws_row })
}

/// How many of the terminal's rows these lines fill; `None` when they are more than it has, or it does not say.
pub fn rows(lines: &[String]) -> Option<usize> {
    let size = size().filter(|size| size.width > 0)?;
    let rows: usize = lines.iter().map(|line| line.chars().count().div_ceil(size.width.into()).max(1)).sum();
    (rows < usize::from(size.height)).then_some(rows)
}

/// While it is held, each key goes through as it is pressed; dropped, the terminal is as it was.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    pub fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}
