//! Memory that is not used any more, given back to the kernel.

/// Gives back what the allocator holds ready for this thread, and what other threads have freed of this one's. It keeps that
/// until the thread allocates again, which one at rest does not. Costs a walk over the thread's pages.
pub fn give_back() {
    // SAFETY: it touches only the calling thread's heap, and may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
