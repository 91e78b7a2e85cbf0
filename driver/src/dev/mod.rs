//! The board: every device of the machine, as a pure function of its state, virtual time and
//! recorded input.
//!
//! One rule makes the board exact: its state changes only when the guest accesses it, when input
//! arrives, or when [`bus::Board::advance`] reaches a time that [`bus::Board::next_deadline`]
//! announced. Looking at it more often changes nothing.

pub mod acpi;
pub mod aml;
pub mod apic_timer;
pub mod bus;
pub mod event;
pub mod ioapic;
pub mod lapic;
pub mod mark;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod vectors;
