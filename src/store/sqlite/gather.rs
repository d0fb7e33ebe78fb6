//! Gathers what SQLite writes page by page into fewer, larger writes.
//!
//! A commit writes each page to the log in two pieces, a checkpoint copies page by page: hundreds of system
//! calls where a few would do, and they were the larger part of what recording a call cost. This is a virtual
//! file system for the writer's connections that stands before SQLite's own: a write that follows the last
//! one is kept in memory, and handed on before anything could depend on it. That is at a sync, which SQLite
//! makes before it shows others what it wrote; and before the file is read where it was written, truncated,
//! measured, unlocked or closed.
//!
//! It must not be used for a connection that does not sync its commits (`synchronous=OFF` or `NORMAL`): such
//! a one shows others what it has not handed on yet.
//!
//! **Invariant:** what a sync has returned for is what plain writes would have left; an error of a write that
//! was held back is an error of what hands it on.

#![expect(
    unsafe_code,
    reason = "SQLite's interface for file systems is made of C functions and pointers"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use rusqlite::ffi::{
    SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_WAL, sqlite3_file, sqlite3_filename,
    sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// The name under which SQLite knows it.
const NAME: &CStr = c"pelton-gather";

/// Bytes that are held back, at most. SQLite's own file system takes less than 128 KiB in one write.
const HELD_BYTES_MAX: usize = 120 * 1024;

/// The name to open a connection with; registers the file system first, once in a process.
///
/// # Errors
/// SQLite has no file system of its own, or takes no other.
pub(super) fn name() -> rusqlite::Result<&'static CStr> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register) {
        SQLITE_OK => Ok(NAME),
        code => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            Some("the file system that gathers writes cannot be registered".to_owned()),
        )),
    }
}

fn register() -> c_int {
    // SAFETY: no name asks for the default file system, which is valid for the life of the process. The
    // copy is leaked, so it is valid as long, and differs in the fields that make it ours; the base's file
    // is given its own room behind ours by the larger size.
    unsafe {
        let base = sqlite3_vfs_find(ptr::null());
        if base.is_null() {
            return SQLITE_IOERR;
        }
        let ours = Box::new(sqlite3_vfs {
            iVersion: (*base).iVersion.min(2),
            szOsFile: (*base).szOsFile.saturating_add(SIZE_OF_OURS),
            mxPathname: (*base).mxPathname,
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            pAppData: base.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_ms),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        });
        sqlite3_vfs_register(Box::into_raw(ours), 0)
    }
}

/// An open file: SQLite gives it room of this size and, right behind, of the size of the base's.
#[repr(C)]
struct File {
    /// First, because SQLite takes the whole for one of these.
    shown: sqlite3_file,
    /// What is held back; null for files that are passed through.
    held: *mut Held,
}

const SIZE_OF_OURS: c_int = {
    // The base's file behind it is aligned as ours is.
    assert!(size_of::<File>() % 8 == 0 && size_of::<File>() < 64);
    size_of::<File>() as c_int
};

/// Bytes that are to be written at a place.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    at: sqlite3_int64,
}

impl Held {
    fn end(&self) -> sqlite3_int64 {
        let length = sqlite3_int64::try_from(self.bytes.len()).unwrap_or(sqlite3_int64::MAX);
        self.at.saturating_add(length)
    }

    fn takes(&self, at: sqlite3_int64, count: usize) -> bool {
        at == self.end() && self.bytes.len() + count <= HELD_BYTES_MAX
    }

    fn overlaps(&self, at: sqlite3_int64, count: c_int) -> bool {
        !self.bytes.is_empty()
            && at < self.end()
            && at.saturating_add(sqlite3_int64::from(count)) > self.at
    }
}

// SAFETY of everything below: SQLite calls these functions with files that `open` has set up (or with the
// file system that `register` has made), each file from one thread at a time, and never after its close. So
// `file` points to a `File` with the base's file behind it, whose methods are set while it is open, and
// `held` is null or a box that only this file has.

/// The base's file behind ours.
unsafe fn base_of(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<File>().add(1).cast() }
}

unsafe fn held<'a>(file: *mut sqlite3_file) -> Option<&'a mut Held> {
    unsafe { (*file.cast::<File>()).held.as_mut() }
}

/// Calls a method of the base's file; what it lacks is an error.
macro_rules! base {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let base = base_of($file);
        match (*(*base).pMethods).$method {
            Some(method) => method(base $(, $argument)*),
            None => SQLITE_IOERR,
        }
    }};
}

/// Hands on what is held back.
unsafe fn hand_on(file: *mut sqlite3_file) -> c_int {
    unsafe {
        let Some(held) = held(file) else {
            return SQLITE_OK;
        };
        if held.bytes.is_empty() {
            return SQLITE_OK;
        }
        let count = c_int::try_from(held.bytes.len()).unwrap_or(c_int::MAX);
        let written = base!(file, xWrite, held.bytes.as_ptr().cast(), count, held.at);
        // After an error SQLite undoes the transaction: nothing is lost that it counts on.
        held.bytes.clear();
        written
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: sqlite3_int64,
) -> c_int {
    unsafe {
        let (Some(held), Ok(length)) = (held(file), usize::try_from(count)) else {
            return base!(file, xWrite, bytes, count, at);
        };
        if !held.takes(at, length) {
            let handed_on = hand_on(file);
            if handed_on != SQLITE_OK {
                return handed_on;
            }
            if length > HELD_BYTES_MAX {
                return base!(file, xWrite, bytes, count, at);
            }
            held.at = at;
        }
        held.bytes.reserve_exact(HELD_BYTES_MAX - held.bytes.len());
        held.bytes
            .extend_from_slice(slice::from_raw_parts(bytes.cast(), length));
        SQLITE_OK
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: sqlite3_int64,
) -> c_int {
    unsafe {
        if held(file).is_some_and(|held| held.overlaps(at, count)) {
            let handed_on = hand_on(file);
            if handed_on != SQLITE_OK {
                return handed_on;
            }
        }
        base!(file, xRead, into, count, at)
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    unsafe {
        let handed_on = hand_on(file);
        let ours = file.cast::<File>();
        if !(*ours).held.is_null() {
            drop(Box::from_raw((*ours).held));
            (*ours).held = ptr::null_mut();
        }
        let closed = base!(file, xClose);
        if handed_on == SQLITE_OK {
            closed
        } else {
            handed_on
        }
    }
}

/// A method that hands on first.
macro_rules! after_handing_on {
    ($name:ident, $method:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            unsafe {
                let handed_on = hand_on(file);
                if handed_on != SQLITE_OK {
                    return handed_on;
                }
                base!(file, $method $(, $argument)*)
            }
        }
    };
}

after_handing_on!(truncate, xTruncate, size: sqlite3_int64);
after_handing_on!(sync, xSync, flags: c_int);
after_handing_on!(file_size, xFileSize, size: *mut sqlite3_int64);
after_handing_on!(unlock, xUnlock, level: c_int);
after_handing_on!(file_control, xFileControl, operation: c_int, argument: *mut c_void);

/// A method that what is held back does not matter to.
macro_rules! passed_on {
    ($name:ident, $method:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            unsafe { base!(file, $method $(, $argument)*) }
        }
    };
}

passed_on!(lock, xLock, level: c_int);
passed_on!(check_reserved_lock, xCheckReservedLock, answer: *mut c_int);
passed_on!(sector_size, xSectorSize);
passed_on!(device_characteristics, xDeviceCharacteristics);
passed_on!(shm_map, xShmMap, page: c_int, size: c_int, extend: c_int, at: *mut *mut c_void);
passed_on!(shm_lock, xShmLock, offset: c_int, count: c_int, flags: c_int);
passed_on!(shm_unmap, xShmUnmap, delete: c_int);

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    unsafe {
        let base = base_of(file);
        if let Some(barrier) = (*(*base).pMethods).xShmBarrier {
            barrier(base);
        }
    }
}

/// Without `xFetch`: a file that is read through a mapping would not see what is held back.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe fn base_vfs(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    unsafe { (*vfs).pAppData.cast() }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    unsafe {
        let (base, inner) = (base_vfs(vfs), base_of(file));
        let ours = file.cast::<File>();
        // Without methods SQLite does not close it.
        (*ours).shown.pMethods = ptr::null();
        (*ours).held = ptr::null_mut();
        let opened = match (*base).xOpen {
            Some(open) => open(base, name, inner, flags, flags_out),
            None => SQLITE_IOERR,
        };
        if (*inner).pMethods.is_null() {
            return opened;
        }
        (*ours).shown.pMethods = &raw const METHODS;
        if opened == SQLITE_OK && flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL) != 0 {
            (*ours).held = Box::into_raw(Box::default());
        }
        opened
    }
}

/// A function of the file system that is the base's.
macro_rules! base_vfs {
    ($name:ident, $function:ident $(, $argument:ident: $type:ty)*) => {
        unsafe extern "C" fn $name(vfs: *mut sqlite3_vfs $(, $argument: $type)*) -> c_int {
            unsafe {
                let base = base_vfs(vfs);
                match (*base).$function {
                    Some(function) => function(base $(, $argument)*),
                    None => SQLITE_IOERR,
                }
            }
        }
    };
}

base_vfs!(delete, xDelete, name: *const c_char, sync: c_int);
base_vfs!(access, xAccess, name: *const c_char, flags: c_int, answer: *mut c_int);
base_vfs!(full_pathname, xFullPathname, name: *const c_char, size: c_int, into: *mut c_char);
base_vfs!(randomness, xRandomness, count: c_int, into: *mut c_char);
base_vfs!(sleep, xSleep, microseconds: c_int);
base_vfs!(current_time, xCurrentTime, into: *mut f64);
base_vfs!(last_error, xGetLastError, size: c_int, into: *mut c_char);
base_vfs!(current_time_ms, xCurrentTimeInt64, into: *mut sqlite3_int64);

#[cfg(test)]
mod tests;
