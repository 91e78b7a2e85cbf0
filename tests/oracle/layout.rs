//! Where the pages of a test are, the same on the host and in the guest.

/// Two pages of code, filled with INT3 around the instruction.
pub(crate) const CODE: u64 = 0x2000_0000;
/// Bytes of code.
pub(crate) const CODE_BYTES: usize = 0x2000;
/// Two writable pages; the pages before them are not mapped.
pub(crate) const DATA: u64 = 0x1000_0000;
/// Bytes of writable data.
pub(crate) const DATA_BYTES: usize = 0x2000;
/// One read-only page, right behind the writable ones; nothing is mapped behind it.
pub(crate) const READ_ONLY: u64 = DATA + DATA_BYTES as u64;
/// Bytes of a page.
pub(crate) const PAGE: u64 = 0x1000;
/// Base of FS. Below the data, so that a displacement can be positive.
pub(crate) const FS_BASE: u64 = 0x0800_0000;
/// Base of GS.
pub(crate) const GS_BASE: u64 = 0x0400_0000;
/// INT3, the end of every test.
pub(crate) const INT3: u8 = 0xcc;

/// What the read-only page holds.
pub(crate) fn fill_read_only(page: &mut [u8]) {
    for (i, byte) in page.iter_mut().enumerate() {
        *byte = (i * 37 + (i >> 8)) as u8;
    }
}
