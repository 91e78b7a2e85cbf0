//! Tables of megabytes of which a question reads a few scattered entries: in large pages, where the
//! host has them, such a read seldom waits for a walk of page tables.
#![allow(
    unsafe_code,
    reason = "the allocator that vectors use cannot be asked for large pages"
)]

/// The same entries, in large pages as far as the host gives them.
pub(super) fn in_large_pages<T: Copy>(entries: &[T]) -> Vec<T> {
    let mut table = Vec::with_capacity(entries.len());
    advise(&table);
    table.extend_from_slice(entries);
    table
}

#[cfg(target_os = "linux")]
fn advise<T: Copy>(table: &Vec<T>) {
    use rustix::mm::{Advice, madvise};

    const LARGE_PAGE: usize = 2 << 20;
    let start = table.as_ptr().cast::<u8>();
    let skipped = start.align_offset(LARGE_PAGE);
    let size = (table.capacity() * size_of::<T>()).saturating_sub(skipped) & !(LARGE_PAGE - 1);
    if size > 0 {
        // SAFETY: these are whole pages inside of the vector's own allocation. The advice changes
        // neither what they hold nor whether they are there.
        let advised = unsafe {
            madvise(
                start.add(skipped).cast_mut().cast(),
                size,
                Advice::LinuxHugepage,
            )
        };
        // A host without large pages has small ones.
        let _ = advised;
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T: Copy>(_: &Vec<T>) {}
