//! The machine as a whole, with guests of a few instructions instead of a kernel.

mod fuzz;
