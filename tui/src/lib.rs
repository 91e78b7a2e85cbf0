//! The viewer of colinux-trace.
