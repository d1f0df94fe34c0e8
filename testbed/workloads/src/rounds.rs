//! Interleaved rounds on a machine that others use as well: what is compared runs in the same
//! round, and the median of the paired ratios is what counts.

use serde::{Deserialize, Serialize};

use crate::bandwidth::Moved;
use crate::latency::HalfRoundTrips;

/// What one stack did in one round, or the median over rounds. Ratios have the same form.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figure {
    /// Of a bandwidth run.
    Bandwidth {
        /// Gigabits (10^9) per second that the receiving application read.
        gbps: f64,
    },
    /// Of a latency run: half round trips in microseconds.
    Latency {
        /// Median.
        p50_us: f64,
        /// 99 of 100 were not longer.
        p99_us: f64,
        /// 999 of 1000 were not longer.
        p999_us: f64,
    },
}

impl From<Moved> for Figure {
    fn from(moved: Moved) -> Self {
        Self::Bandwidth { gbps: moved.gbps() }
    }
}

impl From<HalfRoundTrips> for Figure {
    fn from(times: HalfRoundTrips) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self::Latency {
            p50_us: us(times.p50_ns),
            p99_us: us(times.p99_ns),
            p999_us: us(times.p999_ns),
        }
    }
}

impl Figure {
    /// This figure divided by `other`, value by value; `None` for figures of different kinds.
    pub fn divided_by(&self, other: &Self) -> Option<Self> {
        self.combine(other, |a, b| if b > 0.0 { a / b } else { 0.0 })
    }

    fn combine(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Option<Self> {
        match (*self, *other) {
            (Self::Bandwidth { gbps: a }, Self::Bandwidth { gbps: b }) => {
                Some(Self::Bandwidth { gbps: f(a, b) })
            }
            (
                Self::Latency { p50_us: a, p99_us: b, p999_us: c },
                Self::Latency { p50_us: x, p99_us: y, p999_us: z },
            ) => Some(Self::Latency { p50_us: f(a, x), p99_us: f(b, y), p999_us: f(c, z) }),
            _ => None,
        }
    }

    fn values(&self) -> [f64; 3] {
        match *self {
            Self::Bandwidth { gbps } => [gbps; 3],
            Self::Latency { p50_us, p99_us, p999_us } => [p50_us, p99_us, p999_us],
        }
    }

    /// The median of each value; `None` without figures or with figures of both kinds.
    pub fn median(figures: &[Self]) -> Option<Self> {
        let first = figures.first()?;
        let same = |figure: &Self| std::mem::discriminant(figure) == std::mem::discriminant(first);
        if !figures.iter().all(same) {
            return None;
        }
        let over = |i: usize| median(figures.iter().map(|f| f.values()[i]).collect());
        let [a, b, c] = [over(0)?, over(1)?, over(2)?];
        Some(match first {
            Self::Bandwidth { .. } => Self::Bandwidth { gbps: a },
            Self::Latency { .. } => Self::Latency { p50_us: a, p99_us: b, p999_us: c },
        })
    }
}

/// The median; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

/// What each stack did in one round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// NetChannel.
    pub netchannel: Figure,
    /// Kernel TCP, where it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Figure>,
    /// This machine without a stack.
    pub limit: Figure,
}

/// Rounds in short: the medians of the figures and of the ratios within each round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Median of NetChannel.
    pub netchannel: Figure,
    /// Median of kernel TCP.
    pub tcp: Option<Figure>,
    /// Median of the limit.
    pub limit: Figure,
    /// Median of NetChannel divided by TCP.
    pub ratio: Option<Figure>,
    /// Median of NetChannel divided by the limit.
    pub limit_ratio: Figure,
}

impl Summary {
    /// `None` without rounds.
    pub fn of(rounds: &[Round]) -> Option<Self> {
        let collect = |f: &dyn Fn(&Round) -> Option<Figure>| -> Option<Vec<Figure>> {
            rounds.iter().map(f).collect()
        };
        let over_all = |f: &dyn Fn(&Round) -> Option<Figure>| Figure::median(&collect(f)?);
        Some(Self {
            netchannel: over_all(&|round| Some(round.netchannel))?,
            tcp: over_all(&|round| round.tcp),
            limit: over_all(&|round| Some(round.limit))?,
            ratio: over_all(&|round| round.netchannel.divided_by(&round.tcp?)),
            limit_ratio: over_all(&|round| round.netchannel.divided_by(&round.limit))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn gbps(gbps: f64) -> Figure {
        Figure::Bandwidth { gbps }
    }

    #[test]
    fn ratios_are_paired_before_the_median() {
        // A noisy machine: the third round is slow for everybody.
        let rounds = [(60.0, 20.0), (90.0, 30.0), (6.0, 2.0)].map(|(n, t)| Round {
            netchannel: gbps(n),
            tcp: Some(gbps(t)),
            limit: gbps(100.0),
        });
        let summary = Summary::of(&rounds).unwrap();
        assert_eq!(summary.netchannel, gbps(60.0));
        assert_eq!(summary.ratio, Some(gbps(3.0)));
        assert_eq!(summary.limit_ratio, gbps(0.6));
    }

    #[test]
    fn without_tcp_there_is_no_ratio() {
        let round = Round { netchannel: gbps(1.0), tcp: None, limit: gbps(2.0) };
        let summary = Summary::of(&[round]).unwrap();
        assert_eq!((summary.tcp, summary.ratio), (None, None));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_too() {
        assert_eq!(Figure::median(&[gbps(1.0), gbps(4.0), gbps(2.0), gbps(3.0)]), Some(gbps(2.5)));
    }

    #[test]
    fn figures_are_plain_objects() {
        let latency = Figure::Latency { p50_us: 1.0, p99_us: 2.0, p999_us: 3.0 };
        let text = serde_json::to_string(&[gbps(1.5), latency]).unwrap();
        assert_eq!(text, r#"[{"gbps":1.5},{"p50_us":1.0,"p99_us":2.0,"p999_us":3.0}]"#);
        assert_eq!(serde_json::from_str::<[Figure; 2]>(&text).unwrap(), [gbps(1.5), latency]);
    }
}
