//! The processor's time-stamp counter, and what one of its ticks is worth.

use std::time::{Duration, Instant};

/// The counter. On x86-64 the TSC, read when all that comes before has been done; elsewhere nanoseconds.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: both instructions are part of x86-64 (SSE2) and touch no memory.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Ticks in a second, counted over a fifth of one.
pub fn frequency() -> f64 {
    let (start, from) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(200));
    let (elapsed, to) = (start.elapsed(), ticks());
    (to - from) as f64 / elapsed.as_secs_f64()
}

/// What reading the counter twice with nothing between costs, in ticks: it is in every measurement.
pub fn overhead() -> u64 {
    let mut samples: Vec<u64> = (0..1001).map(|_| ticks().wrapping_sub(ticks()).wrapping_neg()).collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}
