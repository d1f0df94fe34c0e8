//! Processors for two processes that stand for two hosts: no host works on another's processors.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// Half of the processors for each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halves {
    /// Of this process.
    pub here: Vec<u16>,
    /// Of the process that it starts.
    pub there: Vec<u16>,
}

impl Halves {
    /// Halves of what this thread may use; `None` if that is one processor.
    pub fn of_this_process() -> Result<Option<Self>> {
        let allowed = sched_getaffinity(None).context("ask for this process's processors")?;
        let all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(|cpu| cpu as u16);
        Ok(Self::of(&all.collect::<Vec<_>>()))
    }

    /// An odd one is left to others.
    fn of(all: &[u16]) -> Option<Self> {
        let half = all.len() / 2;
        let (here, there) = (all[..half].to_vec(), all[half..2 * half].to_vec());
        (half > 0).then_some(Self { here, there })
    }

    /// Runs `start`, whose child process gets its half; from then on this thread, and what it starts,
    /// keeps to the other one.
    pub fn start_there<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        bind(&self.there)?;
        let started = start();
        bind(&self.here)?;
        started
    }
}

fn bind(processors: &[u16]) -> Result<()> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|cpu| set.set(usize::from(*cpu)));
    sched_setaffinity(None, &set).context(format!("bind a process to processors {processors:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hosts_share_no_processor() {
        let halves = |all: &[u16]| Halves::of(all).map(|halves| (halves.here, halves.there));
        assert_eq!(halves(&[3]), None);
        assert_eq!(halves(&[0, 1]), Some((vec![0], vec![1])));
        assert_eq!(halves(&[0, 2, 4, 6, 7]), Some((vec![0, 2], vec![4, 6])));
    }

    #[test]
    fn a_child_gets_the_other_half() {
        std::thread::spawn(|| {
            let Some(halves) = Halves::of_this_process().unwrap() else {
                eprintln!("skipped: there is one processor");
                return;
            };
            let there = halves.start_there(Halves::of_this_process).unwrap();
            let used = |halves: Option<Halves>| halves.map(|h| [h.here, h.there].concat());
            let both = |one: &[u16]| (one.len() > 1).then(|| one[..one.len() / 2 * 2].to_vec());
            assert_eq!(used(there), both(&halves.there));
            assert_eq!(used(Halves::of_this_process().unwrap()), both(&halves.here));
        })
        .join()
        .unwrap();
    }
}
