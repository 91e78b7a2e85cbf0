//! Recording and going back, for colinux-trace.
