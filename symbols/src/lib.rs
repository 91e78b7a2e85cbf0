//! Names for the addresses of a running Linux kernel.
