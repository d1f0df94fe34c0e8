//! Printing.

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::Context;
use serde::Serialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::problem::Problem;

/// Prints `text` as it is. Whoever reads our output may stop early; that is no error.
pub(crate) fn print(text: &str) -> Result<(), Problem> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Problem::file("write to", "standard output", source))
        }
        _ => Ok(()),
    }
}

/// Says a line on standard error, in one piece: processes that share it do not mix their lines. Where
/// it cannot be written there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("netchannel: {line}\n").as_bytes());
}

/// Prints `value` as one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    Ok(print(&(text + "\n"))?)
}

/// Sends what the stack logs to standard error.
pub(crate) fn log(level: &str) -> anyhow::Result<()> {
    let wrong = |reason: &str| Problem::Usage(format!("log level `{level}`: {reason}"));
    if let Some(word) = level.split(',').find(|word| !names_something(word)) {
        return Err(wrong(&format!(
            "`{word}` is no level (error, warn, info, debug, trace) and no filter such as \
             netchannel=debug"
        ))
        .into());
    }
    let filter = EnvFilter::try_new(level).map_err(|error| wrong(&error.to_string()))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && !plain)
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Whether a part of a filter can match something: a single word is a level, or a part of the stack.
fn names_something(word: &str) -> bool {
    let word = word.trim();
    word.contains(['=', '['])
        || word.starts_with("netchannel")
        || word.parse::<LevelFilter>().is_ok()
}

/// Lines of cells under each other: the first column to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, |column, cell, width| match column {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    })
}

/// Lines of cells under each other, all to the left.
pub(crate) fn left_table(rows: &[Vec<String>]) -> String {
    aligned(rows, |_, cell, width| format!("{cell:<width$}"))
}

fn aligned(rows: &[Vec<String>], align: impl Fn(usize, &str, usize) -> String) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate();
        let line: Vec<String> =
            cells.map(|(column, cell)| align(column, cell, widths[column])).collect();
        text += &format!(" {}\n", line.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_stand_under_each_other() {
        let rows =
            [["name", "Gb/s"], ["netchannel", "1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(super::table(&rows), " name        Gb/s\n netchannel     1\n");
    }
}
