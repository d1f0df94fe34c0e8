//! Where received bytes go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::exit::Problem;

/// The name of standard input and output.
pub(crate) const STANDARD: &str = "-";

/// Where received bytes go.
#[derive(Debug)]
pub(crate) enum Destination {
    /// Standard output.
    Standard,
    /// Something that exists and is no plain file (a device, a pipe): there is nothing to rename.
    InPlace { file: File, path: PathBuf },
    /// A file, which has another name until it is whole.
    Partial { file: File, partial: PathBuf, path: PathBuf },
}

impl Destination {
    /// Finds out early, before anybody sends, that `path` cannot be written.
    pub(crate) fn check(path: &Path) -> Result<(), Problem> {
        let refuse = |kind: io::ErrorKind| Err(Problem::file("write to", path, kind.into()));
        if path == Path::new(STANDARD) {
            return Ok(());
        }
        if path.is_dir() || path.file_name().is_none() {
            return refuse(io::ErrorKind::IsADirectory);
        }
        match path.parent() {
            Some(parent) if parent != Path::new("") && !parent.is_dir() => {
                refuse(io::ErrorKind::NotFound)
            }
            _ => Ok(()),
        }
    }

    /// Opens what `path` names; `-` is standard output.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        if path == Path::new(STANDARD) {
            return Ok(Self::Standard);
        }
        if path.exists() && !path.is_file() {
            let file = OpenOptions::new().write(true).open(path);
            let file = file.map_err(|source| Problem::file("write to", path, source))?;
            return Ok(Self::InPlace { file, path: path.into() });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file =
            File::create(&partial).map_err(|source| Problem::file("create", &partial, source))?;
        Ok(Self::Partial { file, partial, path: path.into() })
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let (result, path) = match self {
            Self::Standard => {
                let mut output = io::stdout().lock();
                (
                    output.write_all(bytes).and_then(|()| output.flush()),
                    Path::new("standard output"),
                )
            }
            Self::InPlace { file, path } => (file.write_all(bytes), path.as_path()),
            Self::Partial { file, partial, .. } => (file.write_all(bytes), partial.as_path()),
        };
        result.map_err(|source| Problem::file("write to", path, source))
    }

    /// What to say about bytes that are not all.
    pub(crate) fn kept(&self) -> String {
        match self {
            Self::Partial { partial, .. } => format!("; what arrived is in {}", partial.display()),
            Self::Standard | Self::InPlace { .. } => String::new(),
        }
    }

    /// Gives a whole file its name.
    pub(crate) fn complete(self) -> Result<(), Problem> {
        match self {
            Self::Partial { file, partial, path } => {
                drop(file);
                std::fs::rename(&partial, &path)
                    .map_err(|source| Problem::file("rename the partial file to", path, source))
            }
            Self::Standard | Self::InPlace { .. } => Ok(()),
        }
    }
}
