//! Direct verbs of mlx5: what libmlx5 tells and does beyond libibverbs.
//!
//! Everything here passes gates at run time, and a closed one is a
//! [`WhyNot`](crate::device::WhyNot) in the device's attributes, never a failure: the device is
//! driven by mlx5, the library is there (`library`), it has the function (`functions`), it knows the
//! device (`mlx5dv_is_supported`), the call succeeds, its answer has the field and says yes
//! (`capabilities`).
//!
//! None of this was run on a NIC of the mlx5 family by this project's tests: they call the same code
//! with a table of functions of their own, and with [answers of real
//! devices](super::recorded) as far as those are published.

mod capabilities;
mod functions;
#[cfg(test)]
mod tests;

pub(super) use capabilities::capabilities;
pub(super) use functions::{Answers, Functions, LIBRARY};
