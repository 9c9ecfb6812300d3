//! The operating system's randomness, answered from the seed in the thread of a world.
//!
//! The standard library's hash maps and the runtime's `select!` draw from `getrandom`, and offer no other way to be told what to
//! draw. This program defines the function itself; other threads and other programs get what the system gives.

#![allow(unsafe_code, reason = "a C function is defined")]

use std::cell::Cell;

thread_local! {
    /// What the next number is made of; absent where the system answers.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread draws what follows from the seed.
pub fn follows(seed: u64) {
    STATE.set(Some(seed));
}

/// Lets programs that this one starts find their memory at the same addresses each time: some hash maps draw from addresses.
pub fn addresses_stay() {
    // SAFETY: it only changes how the kernel lays out programs that are started from now on.
    let present = unsafe { nix::libc::personality(0xffff_ffff) };
    if let Ok(present) = u64::try_from(present) {
        // SAFETY: as above.
        unsafe { nix::libc::personality(present | nix::libc::ADDR_NO_RANDOMIZE as u64) };
    }
}

/// SplitMix64: every seed gives a stream of its own, and nothing here is a secret.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// As getrandom(2).
///
/// # Safety
///
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    // A thread that ends has no state any more.
    let Ok(Some(mut state)) = STATE.try_with(Cell::get) else {
        // SAFETY: as this function's own.
        return unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    let mut filled = 0;
    while filled < length {
        let (now, number) = next(state);
        state = now;
        for byte in number.to_le_bytes().into_iter().take(length - filled) {
            // SAFETY: `filled` is below `length`.
            unsafe { buffer.add(filled).write(byte) };
            filled += 1;
        }
    }
    STATE.set(Some(state));
    filled.cast_signed()
}
