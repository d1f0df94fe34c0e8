//! Opens libibverbs and libmlx5, once per process; they stay open until it ends.

use std::ffi::c_int;
use std::sync::OnceLock;

use super::bindings::{Mlx5, Verbs};
use super::mlx5;
use crate::device::WhyNot;
use crate::error::Error;

const VERBS_LIBRARY: &str = "libibverbs.so.1";

/// The functions of libibverbs.
pub(super) fn verbs() -> Result<&'static Verbs, Error> {
    static VERBS: OnceLock<Result<Verbs, String>> = OnceLock::new();
    VERBS
        .get_or_init(|| open_verbs(VERBS_LIBRARY))
        .as_ref()
        .map_err(|reason| Error::NoDevice { reason: reason.clone() })
}

/// The functions of libmlx5, if it is installed and goes with this libibverbs.
pub(super) fn mlx5() -> Result<&'static mlx5::Functions, WhyNot> {
    static MLX5: OnceLock<Result<mlx5::Functions, WhyNot>> = OnceLock::new();
    MLX5.get_or_init(|| open_mlx5(mlx5::LIBRARY)).as_ref().map_err(WhyNot::clone)
}

fn open_mlx5(name: &str) -> Result<mlx5::Functions, WhyNot> {
    // SAFETY: the constructors of the library register an mlx5 driver with libibverbs, which
    // expects that at any time; the bindings come from its own header.
    let opened = unsafe { Mlx5::new(name) };
    opened.map(mlx5::Functions::from).map_err(|error| {
        WhyNot::NoLibrary(format!("{name} cannot be used: {error}; it is in ibverbs-providers"))
    })
}

fn open_verbs(name: &str) -> Result<Verbs, String> {
    // SAFETY: the library of this name is libibverbs, whose constructors have no requirements;
    // the bindings come from its own header, and its ABI only grows.
    unsafe { Verbs::new(name) }.map_err(|error| {
        format!(
            "{name} cannot be used: {error}; install rdma-core (libibverbs1, ibverbs-providers)"
        )
    })
}

/// The result of a libibverbs function that answers 0, an errno, or -1 with `errno` set.
pub(super) fn check(operation: &'static str, answer: c_int) -> Result<(), Error> {
    match answer {
        0 => Ok(()),
        -1 => Err(Error::last_os(operation)),
        errno => Err(Error::errno(operation, errno.abs())),
    }
}

impl Error {
    /// The same with advice, for an error of the operating system.
    pub(super) fn advise(self, advice: &'static str) -> Self {
        match self {
            Self::Os { operation, source, .. } => Self::Os { operation, source, hint: advice },
            other => other,
        }
    }

    /// The errno, for an error of the operating system.
    pub(super) fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_a_reason() {
        let reason = open_verbs("libibverbs-of-another-age.so.99").err().unwrap();
        assert!(reason.contains("libibverbs-of-another-age.so.99"), "{reason}");
        assert!(reason.contains("install rdma-core"), "{reason}");
    }

    #[test]
    fn a_library_without_the_functions_is_a_reason() {
        let reason = open_verbs("libc.so.6").err().unwrap();
        assert!(reason.contains("ibv_"), "{reason}");
    }

    #[test]
    fn libmlx5_is_optional() {
        let installed = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
            .iter()
            .any(|folder| std::path::Path::new(folder).join(mlx5::LIBRARY).exists());
        match mlx5() {
            Ok(_) => {}
            Err(WhyNot::NoLibrary(reason)) => assert!(!installed, "{reason}"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn without_libmlx5_the_reason_names_it() {
        let reason = open_mlx5("libmlx5-of-another-age.so.99").err().unwrap().to_string();
        assert!(reason.contains("libmlx5-of-another-age.so.99"), "{reason}");
    }

    #[test]
    fn answers_become_errors() {
        assert!(check("ibv_x", 0).is_ok());
        assert_eq!(check("ibv_x", 12).unwrap_err().raw_os_error(), Some(12));
        assert_eq!(check("ibv_x", -22).unwrap_err().raw_os_error(), Some(22));
    }
}
