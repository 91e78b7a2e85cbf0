//! Whatever a debugger sends cannot hurt us. `RECORDING` names a short recording to walk in.
#![no_main]

use std::cell::RefCell;

use colinux_replay::Timeline;
use colinux_replay::gdb::{Debuggee, converse_with};
use colinux_tracer::Reader;

thread_local! {
    static DEBUGGEE: RefCell<Debuggee> = RefCell::new(debuggee());
}

fn debuggee() -> Debuggee {
    let path = std::env::var_os("RECORDING").expect("RECORDING names a recording");
    let reader = Reader::open(path).expect("it is one");
    let timeline = Timeline::open(&reader).expect("it replays");
    Debuggee::new(reader, timeline)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    DEBUGGEE.with_borrow_mut(|debuggee| {
        let answered = converse_with(debuggee, data.split(|byte| *byte == 0));
        answered.expect("the timeline holds");
    });
});
