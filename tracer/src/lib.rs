//! The trace buffer and the recording file of colinux-trace.
