//! The socket where applications find an engine.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::error::Error;

/// Applications that may wait to be taken in.
const BACKLOG: i32 = 64;

fn packets() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// A socket of an engine; its path goes when it is dropped, if it still leads there.
#[derive(Debug)]
pub(super) struct Door {
    fd: OwnedFd,
    path: PathBuf,
    file: FileId,
}

/// Which file it is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

impl Door {
    /// Makes the socket, for the engine's user alone. What an engine that is gone has left at the
    /// path is replaced.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |what: &str, errno: Errno| {
            Error::system(format!("{what} {}", path.display()))(errno.into())
        };
        let address = SocketAddrUnix::new(path).map_err(|e| failed("cannot use the path", e))?;
        let fd = packets().map_err(|e| failed("cannot make a socket for", e))?;
        // On Linux the path gets the mode that the socket has when it is bound.
        let private = Mode::RUSR | Mode::WUSR;
        rustix::fs::fchmod(&fd, private).map_err(|e| failed("cannot protect the socket for", e))?;
        if let Err(errno) = rustix::net::bind(&fd, &address) {
            if errno != Errno::ADDRINUSE {
                return Err(failed("cannot bind the socket", errno));
            }
            Self::remove_stale(path, &address)?;
            rustix::net::bind(&fd, &address).map_err(|e| failed("cannot bind the socket", e))?;
        }
        let file = FileId::at(path)
            .map_err(Error::system(format!("cannot find the socket {}", path.display())))?;
        let door = Self { fd, path: path.to_owned(), file };
        rustix::net::listen(&door.fd, BACKLOG).map_err(|e| failed("cannot listen on", e))?;
        Ok(door)
    }

    /// Something is at the path: removes it if it is a socket that nobody listens on.
    fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), Error> {
        use std::os::unix::fs::FileTypeExt;
        let taken = |reason: &str| {
            let text = format!("{} {reason}", path.display());
            let source = io::Error::new(io::ErrorKind::AddrInUse, text);
            Err(Error::system("cannot serve applications")(source))
        };
        let metadata = std::fs::symlink_metadata(path);
        if metadata.is_ok_and(|metadata| !metadata.file_type().is_socket()) {
            return taken("exists and is no socket");
        }
        let probe = packets().and_then(|probe| rustix::net::connect(&probe, address));
        match probe {
            Err(Errno::CONNREFUSED) => std::fs::remove_file(path)
                .map_err(Error::system(format!("cannot remove the stale {}", path.display()))),
            Err(Errno::NOENT) => Ok(()),
            _ => taken("belongs to an engine that runs; choose another path"),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next application, or `None` if none waits.
    pub(super) fn accept(&self) -> Result<Option<Visitor>, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.fd, flags) {
            Ok(fd) => Visitor::identify(fd).map(Some),
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Somebody may have removed it, and another engine may have made its own there.
        if FileId::at(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who connected, as the kernel tells it.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) fd: OwnedFd,
    pub(super) process: i32,
    pub(super) user: u32,
    /// Readable once the process has ended, also if a child of it holds the socket.
    pub(super) end: Option<OwnedFd>,
}

impl Visitor {
    fn identify(fd: OwnedFd) -> Result<Self, Errno> {
        let credentials = sockopt::socket_peercred(&fd)?;
        let flags = rustix::process::PidfdFlags::empty();
        // Fails for one that has ended already: then the socket tells.
        let end = rustix::process::pidfd_open(credentials.pid, flags).ok();
        let process = credentials.pid.as_raw_nonzero().get();
        Ok(Self { fd, process, user: credentials.uid.as_raw(), end })
    }

    /// Whether it may come in: the engine's own user, or root.
    pub(super) fn is_welcome(&self) -> bool {
        self.user == 0 || self.user == rustix::process::geteuid().as_raw()
    }
}

/// Connects to an engine's socket.
pub(super) fn connect(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno, advice: &str| Error::Attach {
        path: path.to_owned(),
        reason: format!("{}{advice}", io::Error::from(errno)),
        kind: io::Error::from(errno).kind(),
    };
    let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno, ""))?;
    let fd = packets().map_err(|errno| failed(errno, ""))?;
    rustix::net::connect(&fd, &address).map_err(|errno| {
        let advice = match errno {
            Errno::NOENT => "; is the engine running? `netchannel engine --attach PATH` starts one",
            Errno::CONNREFUSED => "; the path is no socket, or the engine that made it is gone",
            Errno::ACCESS | Errno::PERM => "; the engine runs as another user",
            Errno::PROTOTYPE => "; the socket at the path is no NetChannel engine's",
            Errno::AGAIN => "; too many applications are attaching at once, try again",
            _ => "",
        };
        failed(errno, advice)
    })?;
    Ok(fd)
}
