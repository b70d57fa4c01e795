//! The socket's place in the file system.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::rights::Readers;
use crate::config::Control;

/// Everyone may connect; what they may then do is judged by who they are.
const MODE: u32 = 0o666;

/// The control socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// There is no such group.
    #[error("control.group: {0}")]
    Group(String),
    /// Another gateway has it.
    #[error(
        "control.socket: another turnpike runs: it answers on {0}; stop that one, or give this one another control.socket"
    )]
    Answers(PathBuf),
    /// Something else is in its place.
    #[error("control.socket: {0} is there, and is no socket; move it away, or name another path")]
    Occupied(PathBuf),
    /// The system does not let us.
    #[error("control.socket: {path}: {error}; name a path whose directory you may write to, or `off`")]
    System {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No thread.
    #[error("control.socket: no thread for it: {0}")]
    Thread(io::Error),
}

/// A socket that listens. Dropping it removes it.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) readers: Readers,
    path: PathBuf,
    /// Device and file number: what is at `path` later on need not be ours.
    file: (u64, u64),
}

impl Socket {
    /// Takes the configured socket's place, if there is to be one: makes its directory, and replaces the socket of a gateway
    /// that is gone. From then on clients can connect; they are answered once there is a [`Server`](super::Server).
    ///
    /// # Errors
    /// [`SocketError`] names what is in the way.
    pub fn claim(control: &Control) -> Result<Option<Socket>, SocketError> {
        let readers = Readers::of(control.group.as_deref()).map_err(SocketError::Group)?;
        let Some(path) = control.socket.clone() else { return Ok(None) };
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::Occupied(path)),
            Ok(_) if UnixStream::connect(&path).is_ok() => return Err(SocketError::Answers(path)),
            _ => {}
        }
        match listen(&path) {
            Ok((listener, file)) => Ok(Some(Socket { listener, readers, path, file })),
            Err(error) => Err(SocketError::System { path, error }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok((listener, file(path)?))
}

fn file(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if file(&self.path).is_ok_and(|file| file == self.file) {
            // One that stays behind is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
