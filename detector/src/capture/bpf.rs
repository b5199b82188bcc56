//! The bpf system call, for what the library in use has no call for (`include/uapi/linux/bpf.h`).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::io::Errno;

/// `BPF_LINK_DETACH` of `enum bpf_cmd`, from Linux 5.9.
const LINK_DETACH: libc::c_int = 34;
/// `BPF_MAP_LOOKUP_BATCH`, for hash maps from Linux 5.6, which is older than the ring buffer that the tap cannot do without.
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Cuts a link off from what it is attached to.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    /// The first member of the command's part of `union bpf_attr`, and the only one.
    #[repr(C)]
    struct Attributes {
        link: libc::c_int,
    }
    let mut attributes = Attributes { link: link.as_raw_fd() };
    // SAFETY: the command reads the link's number, and nothing in it is a pointer.
    #[expect(unsafe_code, reason = "see bpf")]
    unsafe {
        bpf(LINK_DETACH, &mut attributes)
    }
}

/// Where in a hash map to go on reading: at which of its buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor(u32);

/// Reads entries of a hash map whose keys are `K` and whose values are `V`, as many as there is room for in both, from
/// `cursor` on. Returns how many, and where to go on if there are more. Entries that are added or removed meanwhile may be
/// missed.
pub(super) fn map_lookup_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    cursor: Option<Cursor>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<Cursor>)> {
    #[repr(C)]
    struct Attributes {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: libc::c_int,
        element_flags: u64,
        flags: u64,
    }
    let mut next = Cursor(0);
    let room = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    let mut attributes = Attributes {
        in_batch: cursor.as_ref().map_or(0, |cursor| (&raw const cursor.0).addr() as u64),
        out_batch: (&raw mut next.0).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: room,
        map: map.as_raw_fd(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads a cursor and writes another, each of four bytes, and writes at most `count` keys and values
    // to places that have room for as many; any bytes are a key or a value, since both are plain data. All of them outlive
    // the call. Keys and values have the map's sizes, or it is the caller that reads nonsense, within the same bounds.
    #[expect(unsafe_code, reason = "see bpf")]
    let done = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attributes) };
    let count = attributes.count as usize;
    match done {
        Ok(()) => Ok((count, Some(next))),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok((count, None)),
        Err(error) => Err(error),
    }
}

/// # Safety
/// `attributes` is laid out as the command's part of `union bpf_attr`, and whatever it points to is there to be read and
/// written as the command does.
#[expect(unsafe_code, reason = "aya has no call for these commands")]
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes as many bytes of the attributes as it is told, and takes all others for 0; the
    // rest is up to the caller.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
