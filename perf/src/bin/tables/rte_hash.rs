//! DPDK's rte_hash, by its bulk look-up with the hashes given. It holds the keys itself, in lines of their own. All its
//! memory is taken at the start.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};
use dataplane::worker::BURST;
use dpdk_sys as sys;

use crate::{Key, Sessions, Table};

/// The table. EAL runs when there is one: `new` is the proof.
pub struct RteHash {
    table: NonNull<sys::rte_hash>,
    bytes: usize,
}

/// Bytes that DPDK's heap has given out.
fn allocated() -> usize {
    // SAFETY: plain numbers, for which zero is a value.
    let mut stats: sys::rte_malloc_socket_stats = unsafe { std::mem::zeroed() };
    // SAFETY: DPDK fills in the struct, which is ours; socket 0 is the one of a machine with one.
    let code = unsafe { sys::rte_malloc_get_socket_stats(0, &raw mut stats) };
    if code == 0 { stats.heap_allocsz_bytes } else { 0 }
}

/// Keys of a look-up.
#[expect(clippy::cast_possible_truncation, reason = "it is 32")]
const KEYS: u32 = BURST as u32;

/// A value as it is entered: never null.
const fn data(value: u32) -> *mut c_void {
    ptr::without_provenance_mut(value as usize + 1)
}

impl Table for RteHash {
    const NAME: &'static str = "rte_hash";

    fn new(entries: usize) -> Result<Self> {
        let before = allocated();
        let parameters = sys::rte_hash_parameters {
            name: c"tables".as_ptr(),
            entries: u32::try_from(entries)?.max(8),
            reserved: 0,
            key_len: u32::try_from(size_of::<Key>())?,
            hash_func: None,
            hash_func_init_val: 0,
            socket_id: 0,
            // With lists of further buckets, so that it takes as many entries as it was made for. One thread: no lock.
            extra_flag: u8::try_from(sys::RTE_HASH_EXTRA_FLAGS_EXT_TABLE)?,
        };
        // SAFETY: the parameters are complete, and read during the call; the caller has started EAL.
        let table = unsafe { sys::rte_hash_create(&raw const parameters) };
        let table = NonNull::new(table).context("rte_hash_create: DPDK has too little memory")?;
        Ok(RteHash { table, bytes: allocated() - before })
    }

    fn find(&self, sessions: &Sessions, keys: &[Key; BURST]) -> [u32; BURST] {
        let mut hashes = keys.map(|key| key.hash());
        let mut pointers = keys.each_ref().map(|key| ptr::from_ref(key).cast::<c_void>());
        let (mut hits, mut found) = (0, [ptr::null_mut(); BURST]);
        // SAFETY: 32 keys of the table's length, their hashes, and room for as many results; the table lives.
        unsafe {
            sys::rte_hash_lookup_with_hash_bulk_data(
                self.table.as_ptr(),
                pointers.as_mut_ptr(),
                hashes.as_mut_ptr(),
                KEYS,
                &raw mut hits,
                found.as_mut_ptr(),
            );
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was entered as 32 bits")]
        let values = found.map(|data| data.addr().wrapping_sub(1) as u32);
        values.iter().for_each(|value| sessions.prefetch(value >> 1));
        values
    }

    fn insert(&mut self, _sessions: &Sessions, key: &Key, value: u32) -> Result<()> {
        let (table, key, hash) = (self.table.as_ptr(), ptr::from_ref(key).cast(), key.hash());
        // SAFETY: the key has the table's length and is copied; the value is a number that nobody follows.
        let code = unsafe { sys::rte_hash_add_key_with_hash_data(table, key, hash, data(value)) };
        ensure!(code == 0, "rte_hash_add_key_with_hash_data: {code}");
        Ok(())
    }

    fn remove(&mut self, _sessions: &Sessions, key: &Key, _value: u32) -> Result<()> {
        let (table, key, hash) = (self.table.as_ptr(), ptr::from_ref(key).cast(), key.hash());
        // SAFETY: the key has the table's length, and is only read.
        let code = unsafe { sys::rte_hash_del_key_with_hash(table, key, hash) };
        ensure!(code >= 0, "rte_hash_del_key_with_hash: {code}");
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for RteHash {
    fn drop(&mut self) {
        // SAFETY: the table is ours, and nobody uses it any more.
        unsafe { sys::rte_hash_free(self.table.as_ptr()) };
    }
}
