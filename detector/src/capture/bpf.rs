//! The bpf system call, for what the library in use has no call for (`include/uapi/linux/bpf.h`).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::io::Errno;

/// `BPF_OBJ_PIN` of `enum bpf_cmd`.
const OBJ_PIN: libc::c_int = 6;
/// `BPF_LINK_UPDATE`, from Linux 5.7.
const LINK_UPDATE: libc::c_int = 29;
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

/// Has a link run `program` from now on in place of the one that it runs, with no frame in between. `ENOLINK` if it is cut
/// off from its interface, or that is gone (`tcx_link_update` in the kernel's `kernel/bpf/tcx.c`).
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: libc::c_int,
        new_program: libc::c_int,
        flags: u32,
        old_program: u32,
    }
    let mut attributes =
        Attributes { link: link.as_raw_fd(), new_program: program.as_raw_fd(), flags: 0, old_program: 0 };
    // SAFETY: the command reads numbers, and nothing in it is a pointer.
    #[expect(unsafe_code, reason = "see bpf")]
    unsafe {
        bpf(LINK_UPDATE, &mut attributes)
    }
}

/// Gives a link or a map a name on a BPF file system, which keeps it alive. `EEXIST` if there is something.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        object: libc::c_int,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let address = path.as_ptr().expose_provenance() as u64;
    let mut attributes = Attributes { path: address, object: object.as_raw_fd(), flags: 0 };
    // SAFETY: the kernel reads the path, which ends with a zero and outlives the call.
    #[expect(unsafe_code, reason = "see bpf")]
    unsafe {
        bpf(OBJ_PIN, &mut attributes)
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
