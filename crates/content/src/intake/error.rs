//! Why an upload is refused. Always names the entry, where there is one, and what to do about it.

use std::io;

use model::artifact::MAX_ARTIFACT_BYTES;

use crate::blobs;

/// A refused upload.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    /// The entry or file that is at fault, made printable.
    pub entry: Option<String>,
    pub message: String,
}

/// What kind of fault; stable words for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    Absolute,
    Backslash,
    CaseCollision,
    Changed,
    Corrupt,
    Device,
    Duplicate,
    Empty,
    Encrypted,
    FileAndDirectory,
    InvalidName,
    Link,
    NotAFolder,
    Setuid,
    SizeMismatch,
    Sparse,
    /// Ours, not the caller's: the disk refused.
    Storage,
    TooDeep,
    TooLarge,
    TooManyEntries,
    TrailingData,
    Traversal,
    Truncated,
    UnknownFormat,
    Unreadable,
    Unsupported,
}

impl Code {
    pub const ALL: [Self; 26] = [
        Self::Absolute,
        Self::Backslash,
        Self::CaseCollision,
        Self::Changed,
        Self::Corrupt,
        Self::Device,
        Self::Duplicate,
        Self::Empty,
        Self::Encrypted,
        Self::FileAndDirectory,
        Self::InvalidName,
        Self::Link,
        Self::NotAFolder,
        Self::Setuid,
        Self::SizeMismatch,
        Self::Sparse,
        Self::Storage,
        Self::TooDeep,
        Self::TooLarge,
        Self::TooManyEntries,
        Self::TrailingData,
        Self::Traversal,
        Self::Truncated,
        Self::UnknownFormat,
        Self::Unreadable,
        Self::Unsupported,
    ];

    /// What to do next.
    pub fn help(self) -> &'static str {
        match self {
            Self::Absolute | Self::Traversal => "pack the folder from inside, with paths relative to it",
            Self::Backslash | Self::InvalidName | Self::CaseCollision => "rename the file and pack it again",
            Self::Changed => "upload it again while nobody writes there",
            Self::Corrupt | Self::SizeMismatch | Self::TrailingData | Self::Sparse => {
                "make the archive again, with plain files alone"
            }
            Self::Device | Self::Setuid => "leave the file out, or make a plain one of it",
            Self::Duplicate | Self::FileAndDirectory => "make the archive again, with each path once",
            Self::Empty => "put at least one file into it",
            Self::Encrypted => "make the archive without a password",
            Self::Link => "put a copy of the file in the place of the link",
            Self::NotAFolder => "name a folder or an archive",
            Self::Storage => "free space on the disk of the data folder, then upload it again",
            Self::TooDeep => "use fewer levels of folders",
            Self::TooLarge => "make the site smaller",
            Self::TooManyEntries => "use fewer files",
            Self::Truncated => "upload it again, whole",
            Self::UnknownFormat | Self::Unsupported => "send a tar, tar.gz, tar.zst or zip",
            Self::Unreadable => "give the user that reads it the right to, and try again",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absolute => "absolute_path",
            Self::Backslash => "backslash",
            Self::CaseCollision => "case_collision",
            Self::Changed => "changed_while_read",
            Self::Corrupt => "corrupt_archive",
            Self::Device => "device",
            Self::Duplicate => "duplicate_path",
            Self::Empty => "empty",
            Self::Encrypted => "encrypted",
            Self::FileAndDirectory => "file_and_directory",
            Self::InvalidName => "invalid_name",
            Self::Link => "link",
            Self::NotAFolder => "not_a_folder",
            Self::Setuid => "setuid",
            Self::SizeMismatch => "size_mismatch",
            Self::Sparse => "sparse",
            Self::Storage => "storage",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::TooManyEntries => "too_many_entries",
            Self::TrailingData => "trailing_data",
            Self::Traversal => "path_traversal",
            Self::Truncated => "truncated_archive",
            Self::UnknownFormat => "unknown_format",
            Self::Unreadable => "unreadable",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Marks that a stream unpacked to more than is allowed.
#[derive(Debug, thiserror::Error)]
#[error("more bytes than allowed")]
pub(super) struct Overflow;

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, entry: None, message: message.into() }
    }

    /// Names the entry, unless a nearer one is named already.
    pub(crate) fn about(mut self, entry: impl Into<String>) -> Self {
        self.entry.get_or_insert_with(|| entry.into());
        self
    }

    pub(crate) fn too_large() -> Self {
        let message = format!("more than {} MiB unpacked; make the site smaller", MAX_ARTIFACT_BYTES >> 20);
        Self::new(Code::TooLarge, message)
    }

    /// What a failed read of an archive means.
    pub(crate) fn reading(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<Overflow>()) {
            return Self::too_large();
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::truncated(),
            _ => Self::new(Code::Corrupt, format!("cannot be read ({error}); make the archive again")),
        }
    }

    pub(crate) fn truncated() -> Self {
        Self::new(Code::Truncated, "the archive ends too early; upload it again")
    }

    /// Whether the upload is at fault; else it is this machine, and the same upload may succeed later.
    pub fn is_callers(&self) -> bool {
        self.code != Code::Storage
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "`{entry}`: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        Self::new(Code::Storage, error.to_string())
    }
}
