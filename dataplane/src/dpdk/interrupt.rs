//! DPDK's thread of interrupts and alarms.

use std::os::raw::c_void;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Runs `call` on DPDK's interrupt thread, and returns when it has ended: for what a driver does on that thread of its own accord and
/// does not keep apart from the same on another. Not to be called on that thread. `call` must not panic: that ends the process.
pub(super) fn run<F: FnOnce() + Send>(call: F) {
    let (done, ended) = sync_channel(1);
    let task = Box::into_raw(Box::new(Task { call, done })).cast();
    // SAFETY: the function takes the argument given with it, and is called once. What `call` borrows outlives it, for this function
    // returns when it has ended.
    if unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(perform::<F>), task) } < 0 {
        perform::<F>(task); // No memory for an alarm.
    }
    let _ = ended.recv();
}

struct Task<F> {
    call: F,
    done: SyncSender<()>,
}

/// Uses `task` up, which is the pointer of a `Box<Task<F>>`.
extern "C" fn perform<F: FnOnce()>(task: *mut c_void) {
    // SAFETY: `run` made it of a box, and passes it on once.
    let Task { call, done } = *unsafe { Box::from_raw(task.cast::<Task<F>>()) };
    call();
    let _ = done.send(());
}
