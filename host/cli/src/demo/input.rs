//! The demo's file: a tar of the Rust toolchain's `lib`, in a folder that goes away.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::interrupt::AtInterrupt;
use crate::output;
use crate::problem::Problem;
use crate::quantity::show_bytes;

/// A folder for temporary files, removed at the end and on interrupts.
pub(super) struct Workspace {
    folder: PathBuf,
    _at_interrupt: AtInterrupt,
}

impl Workspace {
    /// A new folder under the system's folder for temporary files.
    pub(super) fn new() -> Result<Self, Problem> {
        let folder = std::env::temp_dir().join(format!("netchannel-demo-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .map_err(|source| Problem::file("create the folder", &folder, source))?;
        let name = folder.clone();
        let at_interrupt = AtInterrupt::new(move || remove(&name));
        Ok(Self { folder, _at_interrupt: at_interrupt })
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        output::say(&format!("cannot remove {}: {error}; remove it by hand", folder.display()));
    }
}

/// Makes the file and returns its path.
pub(super) fn toolchain(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    const INSTEAD: &str = "name another file with --input";
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .with_context(|| format!("cannot ask rustc for its folder; {INSTEAD}"))?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let lib = Path::new(&sysroot).join("lib");
    let path = workspace.path("toolchain-lib.tar");
    output::say(&format!("packing {}", lib.display()));
    let size = pack(&lib, &path).with_context(|| {
        format!("cannot pack {} into {}; {INSTEAD}", lib.display(), path.display())
    })?;
    output::say(&format!("the file has {}", show_bytes(size)));
    Ok(path)
}

fn pack(folder: &Path, archive: &Path) -> std::io::Result<u64> {
    let mut builder = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(archive)?));
    builder.follow_symlinks(false);
    builder.append_dir_all("lib", folder)?;
    builder.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(std::fs::metadata(archive)?.len())
}
