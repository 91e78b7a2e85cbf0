//! Records a Linux kernel and replays it.
fn main() {}
