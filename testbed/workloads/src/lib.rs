//! Workloads that drive NetChannel, its peers and the machine's own limits in the same way.
//!
//! - [`spec`]: what a run is: stack, workload, sizes, settings.
//! - [`transport`]: what a stack must offer to carry a workload.
//! - [`netchannel`]: NetChannel. [`tcp`]: kernel TCP, the baseline.
//! - [`bandwidth`], [`latency`]: the workloads.
//! - [`faults`]: Channels broken on purpose. [`polling`]: who polled, and how busy it was.
//! - [`limit`]: what two processes of this machine can do without any stack.
//! - [`limits`]: all of that in one report.
//! - [`child`]: processes of one's own program, for runs that need two.
//! - [`control`], [`server`], [`client`]: two hosts agree on runs.
//! - [`local`]: a server as another process of this host.
//! - [`processors`]: half of them for each of two processes that stand for two hosts.
//! - [`baseline`]: TCP and the limits prepared for comparison.
//! - [`rounds`]: interleaved rounds, medians, paired ratios.
//! - [`compare`]: a whole comparison. [`report`]: its result, as JSON.
//! - [`isolation`]: a latency stream alone and beside bulk streams.
//! - [`shaped`]: a link with a rate for kernel TCP, in a network namespace.
//! - [`error`]: what may go wrong.

pub mod bandwidth;
pub mod baseline;
pub mod child;
pub mod client;
pub mod compare;
pub mod control;
pub mod error;
pub mod faults;
pub mod isolation;
pub mod latency;
pub mod limit;
pub mod limits;
pub mod local;
pub mod netchannel;
pub mod polling;
pub mod processors;
pub mod report;
pub mod rounds;
pub mod server;
pub mod shaped;
pub mod spec;
pub mod tcp;
pub mod transport;

pub use error::{Error, Result};
