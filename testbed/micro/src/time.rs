//! What criterion measured.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Nanoseconds per operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Nanoseconds {
    /// The median of criterion's samples.
    pub median: f64,
    /// The median's confidence interval of 95 %: from here
    pub low: f64,
    /// to here.
    pub high: f64,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// The latest result for a case in criterion's folder.
///
/// # Errors
/// If there is none.
pub fn read(criterion: &Path, case: &str) -> anyhow::Result<Nanoseconds> {
    let path = criterion.join(case).join("new/estimates.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "no result of criterion in {}; run `cargo bench -p netchannel-micro`",
            path.display()
        )
    })?;
    parse(&text).with_context(|| format!("{} is no result of criterion", path.display()))
}

fn parse(text: &str) -> serde_json::Result<Nanoseconds> {
    let Estimates { median } = serde_json::from_str(text)?;
    let Interval { lower_bound: low, upper_bound: high } = median.confidence_interval;
    Ok(Nanoseconds { median: median.point_estimate, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_read() {
        let text = r#"{"mean": {"confidence_interval": {"confidence_level": 0.95,
            "lower_bound": 1.0, "upper_bound": 2.0}, "point_estimate": 1.5, "standard_error": 0.1},
            "median": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 4.0,
            "upper_bound": 6.0}, "point_estimate": 5.0, "standard_error": 0.1}}"#;
        let expected = Nanoseconds { median: 5.0, low: 4.0, high: 6.0 };
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("{}").is_err());
    }
}
