//! Where applications and engines meet: what both sides of a stream hold, in one process or in two.
//!
//! - [`key`]: a stream's name. [`application`]: whose it is.
//! - [`cell`]: the state of a stream that both see; [`region`]: where its bytes are.
//! - [`port`]: how an application's thread rings at engines and is woken; [`thread_ports`]: the
//!   ports that a thread has.
//! - [`ready`], [`signal`]: how who does not wait in a call hears of a stream.

pub(crate) mod application;
pub(crate) mod cell;
pub(crate) mod key;
pub(crate) mod port;
pub(crate) mod ready;
pub(crate) mod region;
pub(crate) mod signal;
pub(crate) mod thread_ports;

pub(crate) use key::{MAX_SESSIONS, StreamKey};
