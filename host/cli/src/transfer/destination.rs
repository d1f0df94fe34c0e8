//! Where received bytes go.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::problem::Problem;

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
        if path.exists() && !path.is_file() {
            return Ok(());
        }
        // Tried, since permissions alone do not tell (read-only file systems, root on NFS).
        let partial = partial(path);
        let new = !partial.exists();
        let failed = |source| Problem::file("create", &partial, source);
        let _file = alone(&partial).map_err(failed)?;
        if new { std::fs::remove_file(&partial).map_err(failed) } else { Ok(()) }
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
        let partial = partial(path);
        let failed = |source| Problem::file("create", &partial, source);
        let file = alone(&partial).map_err(failed)?;
        file.set_len(0).map_err(failed)?;
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
                // Closed last: until then nobody else begins a file of this name.
                let renamed = std::fs::rename(&partial, &path);
                drop(file);
                renamed.map_err(|source| Problem::file("rename the partial file to", path, source))
            }
            Self::Standard | Self::InPlace { .. } => Ok(()),
        }
    }
}

/// The name of a file until it is whole.
fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// Opens `partial` for this process alone: of two that received under one name, each
/// would compare its checksum, and the file would have bytes of both.
fn alone(partial: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(partial)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // A file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Whoever had it may have given it its final name in between.
        let (here, there) = (file.metadata()?, std::fs::metadata(partial));
        if there.is_ok_and(|there| there.ino() == here.ino() && there.dev() == here.dev()) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_receives_under_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(partial(&path), "what an earlier transfer left").unwrap();
        let mut first = Destination::open(&path).unwrap();
        let error = Destination::open(&path).unwrap_err().to_string();
        assert!(error.contains("choose another name"), "{error}");
        first.write(b"whole").unwrap();
        first.complete().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        Destination::open(&path).unwrap();
    }

    #[test]
    fn a_check_leaves_things_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Destination::check(&path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(partial(&path), "kept").unwrap();
        Destination::check(&path).unwrap();
        assert_eq!(std::fs::read(partial(&path)).unwrap(), b"kept");
        std::fs::remove_file(partial(&path)).unwrap();
        std::fs::create_dir(partial(&path)).unwrap();
        assert!(Destination::check(&path).is_err());
    }
}
