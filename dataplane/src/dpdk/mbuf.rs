//! One packet buffer.

use std::mem;
use std::ptr::NonNull;
use std::slice;

use arrayvec::ArrayVec;
use dpdk_sys::{
    DPDK_MBUF_BUF_ADDR, DPDK_MBUF_BUF_LEN, DPDK_MBUF_DATA_LEN, DPDK_MBUF_DATA_OFF, DPDK_MBUF_NB_SEGS,
    DPDK_MBUF_OL_FLAGS, DPDK_MBUF_PKT_LEN, DPDK_RX_L4_CKSUM_BAD, DPDK_RX_L4_CKSUM_GOOD, DPDK_RX_L4_CKSUM_MASK,
    DPDK_RX_L4_CKSUM_NONE, DPDK_RX_LRO, rte_mbuf,
};

use crate::packet::{Packet, RxChecksum};

/// A packet in DPDK's memory. It has one owner, who may be in any thread, and goes back to its pool when dropped.
///
/// A copy would be freed twice, and two threads may not look at one at once:
///
/// ```compile_fail,E0277
/// fn copy<T: Clone>() {}
/// copy::<dataplane::dpdk::Mbuf>();
/// ```
/// ```compile_fail,E0277
/// fn share<T: Sync>() {}
/// share::<dataplane::dpdk::Mbuf>();
/// ```
///
/// [`Packet::data`] is the first segment. A frame of several ([`Packet::is_contiguous`] is false) can be shortened and
/// grown at its front only.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: DPDK lets any thread use and free a buffer, one at a time; an `Mbuf` is its only owner. Pools are never freed.
unsafe impl Send for Mbuf {}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: we own the buffer, and its pool lives as long as the process.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.0.as_ptr()) }
    }
}

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// The buffer is valid, with a reference count of one, and nobody else uses or frees it, nor its further segments.
    pub(super) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Mbuf(mbuf)
    }

    /// Frees all packets of `burst`: cheaper than one by one.
    pub fn free_bulk<const N: usize>(burst: &mut ArrayVec<Mbuf, N>) {
        let count = u32::try_from(burst.len()).expect("an ArrayVec's length fits u32");
        // SAFETY: an `Mbuf` is a pointer (`repr(transparent)`), and `count` of them are initialised and owned by the
        // array; it forgets them before anything else happens.
        unsafe {
            dpdk_sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count);
            burst.set_len(0);
        }
    }

    /// The value of a field of the buffer's header.
    ///
    /// # Safety
    /// A field of type `T` is at `offset`.
    unsafe fn field<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the buffer is valid and ours to read; `T` is at `offset` (the caller), hence aligned.
        unsafe { self.0.byte_add(offset as usize).cast::<T>().read() }
    }

    /// Writes a field of the buffer's header.
    ///
    /// # Safety
    /// A field of type `T` is at `offset`, and what it then says of the buffer is true.
    unsafe fn set_field<T: Copy>(&mut self, offset: u32, value: T) {
        // SAFETY: the buffer is valid and ours to write; `T` is at `offset` (the caller), hence aligned.
        unsafe { self.0.byte_add(offset as usize).cast::<T>().write(value) }
    }

    /// Where the frame begins in its buffer, in bytes.
    fn data_off(&self) -> u16 {
        // SAFETY: `data_off` is a u16.
        unsafe { self.field(DPDK_MBUF_DATA_OFF) }
    }

    /// Length of the first segment, in bytes.
    fn data_len(&self) -> u16 {
        // SAFETY: `data_len` is a u16.
        unsafe { self.field(DPDK_MBUF_DATA_LEN) }
    }

    /// Length of the buffer, in bytes.
    fn buf_len(&self) -> u16 {
        // SAFETY: `buf_len` is a u16.
        unsafe { self.field(DPDK_MBUF_BUF_LEN) }
    }

    /// The frame's first byte.
    fn start(&self) -> *mut u8 {
        // SAFETY: `buf_addr` is a pointer to the buffer's `buf_len` bytes, and `data_off` is at most that.
        unsafe { self.field::<*mut u8>(DPDK_MBUF_BUF_ADDR).add(usize::from(self.data_off())) }
    }

    /// Moves the frame's ends: `data_off` and `data_len` as given, the whole packet's length by as much.
    ///
    /// # Safety
    /// `data_off + data_len` is at most `buf_len`.
    unsafe fn set_span(&mut self, data_off: u16, data_len: u16) {
        // SAFETY: `pkt_len` is a u32.
        let pkt_len: u32 = unsafe { self.field(DPDK_MBUF_PKT_LEN) };
        let pkt_len = pkt_len.wrapping_sub(u32::from(self.data_len())).wrapping_add(u32::from(data_len));
        // SAFETY: the types are as above; the span is inside the buffer (the caller), and the packet's length is the sum
        // of its segments' again.
        unsafe {
            self.set_field(DPDK_MBUF_DATA_OFF, data_off);
            self.set_field(DPDK_MBUF_DATA_LEN, data_len);
            self.set_field(DPDK_MBUF_PKT_LEN, pkt_len);
        }
    }
}

impl Packet for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: `start` and the `data_len` bytes behind it are in the buffer, which we own; a pool's memory is
        // mapped zeroed, so they are initialised.
        unsafe { slice::from_raw_parts(self.start(), usize::from(self.data_len())) }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`; we are the only owner.
        unsafe { slice::from_raw_parts_mut(self.start(), usize::from(self.data_len())) }
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        // SAFETY: `nb_segs` is a u16.
        unsafe { self.field::<u16>(DPDK_MBUF_NB_SEGS) == 1 }
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.data_off())
    }

    #[inline]
    fn tailroom(&self) -> usize {
        if self.is_contiguous() {
            usize::from(self.buf_len()) - usize::from(self.data_off()) - usize::from(self.data_len())
        } else {
            0
        }
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> bool {
        let (off, len) = (self.data_off(), self.data_len());
        match u16::try_from(n) {
            Ok(n) if n <= off => {
                // SAFETY: the end stays where it was; `len + n` is at most `len + off`, hence at most `buf_len`.
                unsafe { self.set_span(off - n, len + n) };
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let (off, len) = (self.data_off(), self.data_len());
        match u16::try_from(n) {
            Ok(n) if n <= len => {
                // SAFETY: the end stays where it was.
                unsafe { self.set_span(off + n, len - n) };
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn append(&mut self, n: usize) -> bool {
        match u16::try_from(n) {
            Ok(more) if n <= self.tailroom() => {
                // SAFETY: `more` is at most the tailroom, so the end is at most `buf_len`.
                unsafe { self.set_span(self.data_off(), self.data_len() + more) };
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if let Ok(len) = u16::try_from(len)
            && len < self.data_len()
            && self.is_contiguous()
        {
            // SAFETY: the end moves to the front.
            unsafe { self.set_span(self.data_off(), len) };
        }
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        // SAFETY: `ol_flags` is a u64.
        let flags: u64 = unsafe { self.field(DPDK_MBUF_OL_FLAGS) };
        match flags & DPDK_RX_L4_CKSUM_MASK {
            DPDK_RX_L4_CKSUM_GOOD => RxChecksum::Good,
            DPDK_RX_L4_CKSUM_BAD => RxChecksum::Bad,
            DPDK_RX_L4_CKSUM_NONE => RxChecksum::Partial,
            _ => RxChecksum::Unknown,
        }
    }

    #[inline]
    fn is_merged(&self) -> bool {
        // SAFETY: `ol_flags` is a u64.
        unsafe { self.field::<u64>(DPDK_MBUF_OL_FLAGS) & DPDK_RX_LRO != 0 }
    }

    fn discard<const N: usize>(burst: &mut ArrayVec<Self, N>) {
        Mbuf::free_bulk(burst);
    }
}

// A burst's array is handed to DPDK as an array of pointers.
const _: () = assert!(mem::size_of::<Mbuf>() == mem::size_of::<*mut rte_mbuf>());
