//! A recording in other programs' formats.
//!
//! | format | for | made from |
//! |---|---|---|
//! | [`perfetto`] | ui.perfetto.dev, trace_processor | the events alone |
//! | [`vmcore`] | crash, drgn, gdb | the machine at one tick |

pub mod perfetto;
mod proto;
pub mod vmcore;
