//! DPDK's log: what is said while something is set up goes into the error if that fails; warnings at other times, and
//! everything if the configuration says so, go to standard error.

use std::ffi::{c_char, c_void};
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What DPDK said while something failed, its warnings and errors first.
#[derive(Debug, Default)]
pub struct Log(Vec<String>);

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The most messages kept of one set-up.
const CAPTURE_MAX: usize = 64;

#[derive(Debug)]
struct State {
    verbose: bool,
    /// Level and text of each message of the set-up under way.
    captured: Option<Vec<(u32, String)>>,
}

static STATE: Mutex<State> = Mutex::new(State { verbose: false, captured: None });
/// One set-up, or other control call, at a time.
static CONTROL: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to make control calls: DPDK wants them one at a time.
pub(super) fn control() -> MutexGuard<'static, ()> {
    lock(&CONTROL)
}

/// The right to make control calls, with the log of these kept aside.
#[derive(Debug)]
pub(super) struct Setup(#[expect(dead_code, reason = "held for its lock")] MutexGuard<'static, ()>);

impl Setup {
    pub(super) fn begin() -> Self {
        let control = control();
        lock(&STATE).captured = Some(Vec::new());
        Setup(control)
    }

    /// What was said so far: warnings and worse, or everything where nobody warned.
    pub(super) fn log(&self) -> Log {
        let lines = lock(&STATE).captured.replace(Vec::new()).unwrap_or_default();
        let warned = lines.iter().any(|(level, _)| *level <= dpdk_sys::RTE_LOG_WARNING);
        let told = lines.into_iter().filter(|(level, _)| !warned || *level <= dpdk_sys::RTE_LOG_WARNING);
        Log(told.map(|(_, line)| line).collect())
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        lock(&STATE).captured = None;
    }
}

/// Takes over DPDK's log. `verbose`: everything goes to standard error.
pub(super) fn init(verbose: bool) {
    lock(&STATE).verbose = verbose;
    // SAFETY: `write` has the signature that the stream wants and lives as long as the program. The call fails without
    // memory only; DPDK then logs to standard error by itself.
    unsafe { dpdk_sys::dpdk_log_to(Some(write)) };
}

/// Called by the C library with one message of DPDK's log, or more.
unsafe extern "C" fn write(_cookie: *mut c_void, text: *const c_char, len: usize) -> isize {
    // SAFETY: the stream gives a buffer of `len` bytes that it keeps until this function returns.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // SAFETY: reads a thread-local of DPDK; no conditions.
    let level = u32::try_from(unsafe { dpdk_sys::rte_log_cur_msg_loglevel() }).unwrap_or(u32::MAX);
    let mut state = lock(&STATE);
    let state = &mut *state;
    for line in String::from_utf8_lossy(text).lines().filter(|line| !line.trim().is_empty()) {
        if state.verbose || (state.captured.is_none() && level <= dpdk_sys::RTE_LOG_WARNING) {
            // A closed standard error must not stop a driver.
            let _ = writeln!(io::stderr(), "dpdk: {line}");
        }
        if let Some(captured) = state.captured.as_mut().filter(|captured| captured.len() < CAPTURE_MAX) {
            captured.push((level, line.to_owned()));
        }
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}
