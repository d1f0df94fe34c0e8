//! Instructions per operation, from callgrind.
//!
//! This program runs one case under valgrind, twice with different numbers of batches; the
//! difference is what the additional batches took. Only what happens inside of
//! [`measured_region`](crate::case::measured_region) counts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::allocations;
use crate::case::{Case, one_batch};

/// Batches of the two runs.
const BATCHES: [u64; 2] = [50, 150];

/// What [`run`] prints before the number of allocations.
const ALLOCATIONS: &str = "allocations: ";

/// Cost of one operation, apart from time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Instructions per operation.
    pub instructions: f64,
    /// Allocations in all batches after the warm-up, whole batches included.
    pub allocations: u64,
}

/// Runs `batches` batches of a case, as the child of [`count`], and prints the allocations.
pub fn run(case: &Case, batches: u64) {
    let mut bench = case.warm();
    let before = allocations::count();
    (0..batches).for_each(|_| one_batch(&mut *bench));
    println!("{ALLOCATIONS}{}", allocations::count() - before);
}

/// Counts a case.
///
/// # Errors
/// If valgrind is missing or fails.
pub fn count(case: &Case) -> anyhow::Result<Count> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let runs = BATCHES.map(|batches| under_callgrind(&program, case.name, batches));
    let [(few, _), (many, allocations)] = match runs {
        [Ok(few), Ok(many)] => [few, many],
        [Err(error), _] | [_, Err(error)] => return Err(error),
    };
    let operations = (BATCHES[1] - BATCHES[0]) * case.batch;
    Ok(Count { instructions: (many - few) as f64 / operations as f64, allocations })
}

fn under_callgrind(program: &Path, case: &str, batches: u64) -> anyhow::Result<(u64, u64)> {
    let folder = std::env::temp_dir().join(format!("netchannel-micro-{}", std::process::id()));
    fs::create_dir_all(&folder).context("cannot make a folder for callgrind's output")?;
    let out = folder.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_region*", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["run", case, &batches.to_string()])
        .output()
        .context("cannot start valgrind; scripts/setup --micro installs it")?;
    let profile = fs::read_to_string(&out);
    let _ = fs::remove_dir_all(&folder);
    if !output.status.success() {
        bail!(
            "{case} under valgrind: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let allocations = said.lines().find_map(|line| line.strip_prefix(ALLOCATIONS)?.parse().ok());
    let instructions = total(&profile.context("callgrind left no output")?);
    match (instructions, allocations) {
        (Some(instructions), Some(allocations)) => Ok((instructions, allocations)),
        _ => bail!("{case} under valgrind: no count in its output"),
    }
}

/// The instructions of a whole profile.
fn total(profile: &str) -> Option<u64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals: "))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("events: Ir\n\nfn=(0) x\n0 12\n\ntotals: 12\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }
}
