//! Passwords, which no log, page or panic shows.

use std::fmt;
use std::io;
use std::path::Path;

use crate::fault;

/// A text that is shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from sight.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The first line of a file, which must hold something.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Ok(Self(line.to_owned())),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "is empty")),
        }
    }

    /// The text itself, for those who need it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if fault::on("secrets-shown") { &self.0 } else { "***" })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
