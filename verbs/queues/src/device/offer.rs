//! Whether something optional is there, and if not, which of the gates before it is closed.

use std::io;

/// What a device offers, or why it does not.
pub type Offer<T> = Result<T, WhyNot>;

/// Why something optional is not there. Each variant is one gate; they are tried in this order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// Nobody asked: the question makes no sense for this device.
    #[error("{0}")]
    OtherDevice(&'static str),
    /// The library cannot be opened.
    #[error("{0}")]
    NoLibrary(String),
    /// The library lacks the function.
    #[error("{library} lacks {function}, which came with rdma-core {since}")]
    NoFunction {
        /// File name of the library.
        library: &'static str,
        /// The function.
        function: &'static str,
        /// First release of rdma-core with it.
        since: &'static str,
    },
    /// The function says that the device is none of its own.
    #[error("{function} says no")]
    NotSupported {
        /// The function.
        function: &'static str,
    },
    /// The function answered an error.
    #[error("{function} failed: {}", io::Error::from_raw_os_error(*errno))]
    Failed {
        /// The function.
        function: &'static str,
        /// What it answered.
        errno: i32,
    },
    /// The answer lacks the field: an older library, kernel or NIC, or nothing to say.
    #[error("the answer lacks {field}")]
    NotAnswered {
        /// Bit of the mask that names the field.
        field: &'static str,
    },
    /// The device answered that it has none, or none that is of use here.
    #[error("{0}")]
    Declined(String),
}
