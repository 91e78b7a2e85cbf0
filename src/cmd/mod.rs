//! One file per verb: wiring only.

mod background;
pub(crate) mod bt;
pub(crate) mod counters;
pub(crate) mod cut;
pub(crate) mod doctor;
pub(crate) mod dump;
pub(crate) mod dump_names;
pub(crate) mod export;
pub(crate) mod gdb;
pub(crate) mod guest;
pub(crate) mod info;
pub(crate) mod ls;
pub(crate) mod origin;
pub(crate) mod print;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod suspend;
pub(crate) mod symbols;
mod symfile;
pub(crate) mod tui;
mod variables;
pub(crate) mod verify;
