//! Printing.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Prints `text` as it is. Whoever reads our output may stop early; that is no error.
pub(crate) fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Prints `value` as one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    print(&(text + "\n"));
    Ok(())
}

/// Sends what the stack logs to standard error.
pub(crate) fn log(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| crate::exit::Problem::Usage(format!("log level `{level}`: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
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
