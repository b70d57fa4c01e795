//! Cores, and a worker's thread on its own.

use std::fs;
use std::marker::PhantomData;
use std::sync::OnceLock;

use core_affinity::CoreId;

use super::eal::Eal;
use super::error::reason;

/// Why a thread can't run on a core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// Two threads would poll on one core.
    #[error("core {0} is named twice: each worker needs a core of its own")]
    NamedTwice(usize),
    /// The machine has no such core.
    #[error("core {core} does not exist: this machine has {present}")]
    Absent {
        /// The core.
        core: usize,
        /// The cores that there are, as the kernel writes them.
        present: String,
    },
    /// The core is switched off.
    #[error("core {core} is offline: `echo 1 > /sys/devices/system/cpu/cpu{core}/online`, or choose among {online}")]
    Offline {
        /// The core.
        core: usize,
        /// The cores that are on, as the kernel writes them.
        online: String,
    },
    /// The process may not use the core.
    #[error(
        "core {core} is outside the cpuset of this process, which has {available:?}: widen it, or choose among these"
    )]
    OutsideCpuset {
        /// The core.
        core: usize,
        /// The cores that the process may use.
        available: Vec<usize>,
    },
    /// The kernel didn't move the thread.
    #[error("the thread could not be pinned to core {0}")]
    Pin(usize),
    /// DPDK has no more room for threads, or knows this one already.
    #[error("the thread on core {core} could not be registered with DPDK: {reason}")]
    Register {
        /// The core.
        core: usize,
        /// Why.
        reason: String,
    },
}

/// The cores that threads of the process may be pinned to: read at the first call, before any thread is pinned.
///
/// They are those that the kernel lets the process roam, and those that it keeps its scheduler off (`isolcpus=`): no
/// process roams these, and workers are what they are set apart for.
#[must_use]
pub fn available_cores() -> Vec<usize> {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    let find = || {
        let mut cores = roaming_cores();
        let isolated = fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
        cores.extend(parse_list(isolated.trim()).filter(|&core| can_be_pinned_to(core)));
        cores.sort_unstable();
        cores.dedup();
        cores
    };
    CORES.get_or_init(find).clone()
}

/// The cores that threads of the process run on if nobody pins them, read at the first call.
pub(super) fn roaming_cores() -> Vec<usize> {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(affinity).clone()
}

/// Whether the cpuset of the process has the core: a thread tries it.
fn can_be_pinned_to(core: usize) -> bool {
    let attempt = move || core_affinity::set_for_current(CoreId { id: core }) && affinity() == [core];
    std::thread::spawn(attempt).join().unwrap_or(false)
}

/// The cores that the calling thread may use now.
fn affinity() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Whether each of `cores` can be a thread's own.
///
/// # Errors
/// Names the first core that can't, and says why.
pub fn check_cores(cores: &[usize]) -> Result<(), CoreError> {
    let list = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).unwrap_or_default();
    check(cores, &available_cores(), list("online").trim(), list("present").trim())
}

fn check(cores: &[usize], available: &[usize], online: &str, present: &str) -> Result<(), CoreError> {
    for (index, &core) in cores.iter().enumerate() {
        if cores[..index].contains(&core) {
            return Err(CoreError::NamedTwice(core));
        }
        if !available.contains(&core) {
            return Err(if !parse_list(present).any(|there| there == core) {
                CoreError::Absent { core, present: present.into() }
            } else if !parse_list(online).any(|on| on == core) {
                CoreError::Offline { core, online: online.into() }
            } else {
                CoreError::OutsideCpuset { core, available: available.into() }
            });
        }
    }
    Ok(())
}

/// The cores of a list of the kernel's: `0-3,8`.
fn parse_list(list: &str) -> impl Iterator<Item = usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten()
}

/// The calling thread, pinned to a core and known to DPDK, so that packet pools keep a cache for it. Dropping it takes the
/// thread off DPDK's list.
#[derive(Debug)]
pub struct WorkerThread {
    /// Registration is the thread's: it can't be given to another.
    _not_send: PhantomData<*const ()>,
}

impl WorkerThread {
    /// Pins the calling thread to `core` and registers it.
    ///
    /// # Errors
    /// Those of [`check_cores`], [`CoreError::Pin`], [`CoreError::Register`].
    pub fn enter(_eal: Eal, core: usize) -> Result<WorkerThread, CoreError> {
        check_cores(&[core])?;
        if !core_affinity::set_for_current(CoreId { id: core }) || affinity() != [core] {
            return Err(CoreError::Pin(core));
        }
        let register = |reason: String| CoreError::Register { core, reason };
        if registered() {
            return Err(register("it is registered already".into()));
        }
        // SAFETY: EAL runs (`_eal`), and the thread is not one of its own.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            // SAFETY: reads a thread-local of DPDK; no conditions.
            return Err(register(reason(-unsafe { dpdk_sys::dpdk_errno() })));
        }
        assert!(registered(), "DPDK registered the thread and gave it no number");
        Ok(WorkerThread { _not_send: PhantomData })
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // SAFETY: this thread was registered by `enter`: the guard can't leave it.
        unsafe { dpdk_sys::rte_thread_unregister() }
    }
}

/// Whether DPDK knows the calling thread.
fn registered() -> bool {
    // SAFETY: reads a thread-local of DPDK; no conditions.
    unsafe { dpdk_sys::rte_lcore_id() != dpdk_sys::LCORE_ID_ANY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_refused_by_name() {
        let check = |cores: &[usize]| check(cores, &[0, 1, 4], "0-5", "0-6").map_err(|error| error.to_string());
        assert_eq!(check(&[0, 4, 1]), Ok(()));
        assert_eq!(check(&[1, 1]), Err("core 1 is named twice: each worker needs a core of its own".into()));
        assert_eq!(check(&[7]), Err("core 7 does not exist: this machine has 0-6".into()));
        let remedy = "`echo 1 > /sys/devices/system/cpu/cpu6/online`, or choose among 0-5";
        assert_eq!(check(&[6]), Err(format!("core 6 is offline: {remedy}")));
        let reason = "outside the cpuset of this process, which has [0, 1, 4]: widen it, or choose among these";
        assert_eq!(check(&[0, 5]), Err(format!("core 5 is {reason}")));
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0-3,8").collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("").count(), 0);
    }

    /// A core that is set apart is one that no thread roams, and that a thread can be pinned to all the same.
    #[test]
    fn a_core_is_tried_by_a_thread_of_its_own() {
        let before = affinity();
        assert!(can_be_pinned_to(before[0]));
        assert!(!can_be_pinned_to(1023), "the last that an affinity has room for");
        assert_eq!(affinity(), before);
    }

    #[test]
    fn cores_of_this_machine() {
        assert_eq!(check_cores(&available_cores()), Ok(()));
        assert!(matches!(check_cores(&[100_000]), Err(CoreError::Absent { core: 100_000, .. })));
    }
}
