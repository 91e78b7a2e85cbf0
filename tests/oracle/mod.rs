//! The host's CPU as an oracle for the machine's instructions.

pub(crate) mod compare;
pub(crate) mod exclusions;
pub(crate) mod forms;
pub(crate) mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod host;
pub(crate) mod ins;
pub(crate) mod instance;
pub(crate) mod layout;
pub(crate) mod random;
pub(crate) mod scenario;
pub(crate) mod state;
pub(crate) mod undefined;
