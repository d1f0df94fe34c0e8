//! Reads tables and hex blocks of `docs/wire.md`.

use std::collections::BTreeMap;
use std::path::Path;

pub(crate) struct Document(String);

/// A row of a table: its cells.
pub(crate) type Row<'a> = Vec<&'a str>;

impl Document {
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md");
        let text = std::fs::read_to_string(&path);
        Self(text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Panics unless the text is there.
    pub(crate) fn contains(&self, text: &str) {
        assert!(self.0.contains(text), "docs/wire.md does not say {text:?}");
    }

    /// Lines of the fenced blocks that begin with ```` ```hex NAME ````.
    pub(crate) fn hex_blocks(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut blocks = BTreeMap::new();
        let mut lines = self.0.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("```hex ") {
                let block = lines.by_ref().take_while(|line| *line != "```").collect();
                assert!(blocks.insert(name, block).is_none(), "two blocks {name}");
            }
        }
        blocks
    }

    /// The first table after a heading, or after the line that starts with `after`, whose header
    /// starts with `column`.
    pub(crate) fn table(&self, after: &str, column: &str) -> Vec<Row<'_>> {
        let begins = |line: &str| match after.starts_with('#') {
            true => line == after,
            false => line.starts_with(after),
        };
        let mut lines = self.0.lines().skip_while(|line| !begins(line));
        assert!(lines.next().is_some(), "no line {after:?}");
        self.rows(lines, column)
    }

    /// Number and name of the rows of the first table whose header starts with `column`.
    pub(crate) fn pairs(&self, column: &str) -> Vec<(u64, String)> {
        let number = |cell: &str| match cell.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => cell.parse(),
        };
        let rows = self.rows(self.0.lines(), column);
        rows.iter().map(|row| (number(row[0]).unwrap(), row[1].to_owned())).collect()
    }

    fn rows<'a>(&self, lines: impl Iterator<Item = &'a str>, column: &str) -> Vec<Row<'a>> {
        let header = format!("| {column} |");
        let mut lines = lines.skip_while(|line| !line.starts_with(&header));
        assert!(lines.next().is_some(), "no table {header:?}");
        let rule = lines.next().unwrap_or_default();
        assert!(rule.starts_with("|---|"), "{header:?} is no table");
        let rows: Vec<_> = lines.map_while(cells).collect();
        assert!(!rows.is_empty());
        rows
    }

    /// Whether each row starts where the one before it ends; returns where the fixed ones end.
    pub(crate) fn check_offsets(&self, rows: &[Row<'_>]) -> usize {
        let mut end = 0;
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row[0], end.to_string(), "{row:?}");
            match size(row[1]) {
                Some(size) => end += size,
                None => assert_eq!(i, rows.len() - 1, "{row:?}"),
            }
            let width = row[2].strip_prefix('u').map(|bits| bits.parse::<usize>().unwrap() / 8);
            assert!(width.is_none_or(|width| Some(width) == size(row[1])), "{row:?}");
        }
        end
    }
}

fn cells(line: &str) -> Option<Row<'_>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// A number of bytes, or `None` for "n".
pub(crate) fn size(cell: &str) -> Option<usize> {
    (cell != "n").then(|| cell.parse().unwrap())
}

/// The bytes of a line of a hex block.
pub(crate) fn hex(line: &str) -> Vec<u8> {
    let (digits, _) = line.split_once('#').unwrap_or((line, ""));
    digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// The other way.
pub(crate) fn text(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}
