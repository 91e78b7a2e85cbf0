//! Reading the guest's memory, as far as it is there.

use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::{Gpa, PAGE_MASK, PAGE_SIZE};

/// Bad address.
pub(crate) const EFAULT: u8 = 14;
/// A recorded execution is read-only.
pub(crate) const EROFS: u8 = 30;

/// Reads by pages, until one is not there; says how many bytes were read.
fn by_pages(start: u64, data: &mut [u8], mut one: impl FnMut(u64, &mut [u8]) -> bool) -> usize {
    let mut done = 0;
    while done < data.len() {
        let at = start.wrapping_add(done as u64);
        let n = (data.len() - done).min((PAGE_SIZE - (at & PAGE_MASK)) as usize);
        if !one(at, &mut data[done..done + n]) {
            break;
        }
        done += n;
    }
    done
}

/// Reads guest-virtual memory through the current page tables, without any effect on the guest.
pub(crate) fn read_virtual(machine: &mut Machine, start: u64, data: &mut [u8]) -> usize {
    by_pages(start, data, |at, piece| machine.core_mut().peek(at, piece))
}

/// Reads pseudo-physical memory.
pub(crate) fn read_physical(machine: &Machine, start: Gpa, data: &mut [u8]) -> usize {
    by_pages(start.0, data, |at, piece| {
        machine.core().peek_physical(Gpa(at), piece)
    })
}
