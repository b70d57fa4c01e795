//! What the service manager hears of us: sd_notify(3), the protocol of systemd and others.
//!
//! A datagram to the socket that the environment names says that we are ready, what we do, and, as often as the watchdog
//! wants it, that the control thread is alive. Without such a socket nothing is said. Nothing here blocks or fails: a manager
//! that does not listen is no reason to stop.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use dataplane::time::Time;
use nix::time::{ClockId, clock_gettime};
use tracing::warn;

/// The service manager, if there is one that wants to hear.
#[derive(Debug)]
pub struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are alive.
    beat_every: Option<Duration>,
    beat_due: Time,
}

impl Service {
    /// The manager that the environment names: `NOTIFY_SOCKET`; `WATCHDOG_USEC` and `WATCHDOG_PID`, if we are meant.
    #[must_use]
    pub fn from_environment() -> Self {
        let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC").ok().filter(|_| ours).and_then(|micros| micros.parse().ok());
        Service::new(env::var_os("NOTIFY_SOCKET"), watchdog.map(Duration::from_micros))
    }

    /// The manager that listens on this socket: a path, or `@` and an abstract name. It gives us up after `watchdog` without
    /// a word.
    #[must_use]
    pub fn new(address: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let socket = address.filter(|address| !address.is_empty()).and_then(|address| {
            let opened = open(&address);
            if let Err(error) = &opened {
                let address = address.display();
                warn!("the service manager hears nothing of us: NOTIFY_SOCKET={address}: {error}");
            }
            opened.ok()
        });
        // Half of it, as sd_watchdog_enabled(3) asks for; a watchdog of zero is none.
        let beat_every =
            watchdog.filter(|watchdog| socket.is_some() && !watchdog.is_zero()).map(|watchdog| watchdog / 2);
        let beat_due = if beat_every.is_some() { Time::ZERO } else { Time::NEVER };
        Service { socket, beat_every, beat_due }
    }

    /// We do what we are for, and `status` says what that is: after the start, and after [`Service::reloading`].
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// What we do now, in one line.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={status}"));
    }

    /// We read our configuration anew.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// We are about to end.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=Stopping");
    }

    /// When [`Service::beat`] has something to say.
    #[must_use]
    pub fn beat_due(&self) -> Time {
        self.beat_due
    }

    /// Says that we are alive, if it is time to.
    pub fn beat(&mut self, now: Time) {
        if let Some(every) = self.beat_every.filter(|_| self.beat_due <= now) {
            self.say("WATCHDOG=1");
            self.beat_due = now + every;
        }
    }

    fn say(&self, text: &str) {
        if let Some((socket, manager)) = &self.socket {
            // See the module's documentation.
            let _ = socket.send_to_addr(text.as_bytes(), manager);
        }
    }
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}
