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
