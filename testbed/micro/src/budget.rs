//! The design's budgets (its section "Budgets") beside what was measured.

use std::fmt::Write as _;

use serde::Serialize;

use crate::time::Nanoseconds;

/// A case's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The case.
    pub name: String,
    /// Time.
    pub nanoseconds: Nanoseconds,
    /// Instructions, if they were counted.
    pub instructions: Option<f64>,
    /// Allocations in the steady state, if they were counted.
    pub allocations: Option<u64>,
}

/// A limit on the time of a case.
struct Budget {
    item: &'static str,
    nanoseconds: f64,
    case: &'static str,
    /// A case whose cost does not count: the payload's copy.
    without: Option<&'static str>,
}

const fn budget(item: &'static str, nanoseconds: f64, case: &'static str) -> Budget {
    Budget { item, nanoseconds, case, without: None }
}

const BUDGETS: &[Budget] = &[
    budget("ring push, a fence per batch", 10.0, "ring/push"),
    budget("ring pop, a fence per batch", 10.0, "ring/pop"),
    budget("message header, encode", 5.0, "wire/encode-header"),
    budget("message header, decode", 5.0, "wire/decode-header"),
    budget("frame header, encode", 5.0, "wire/encode-frame"),
    budget("frame header, decode", 5.0, "wire/decode-frame"),
    budget("scheduler decision", 20.0, "scheduler/decision"),
    budget("on_acks", 20.0, "channel/on-acks"),
    // A device posts, matches and completes by itself; the one in memory does it on the processor,
    // and copies the payload while posting. The receiver finds the payload in its window.
    Budget {
        without: Some("nic/4-KiB-chunk-sender"),
        ..budget("4 KiB chunk, sender: the stack alone", 80.0, "stack/4-KiB-chunk-sender")
    },
    Budget {
        without: Some("nic/4-KiB-chunk-receiver"),
        ..budget("4 KiB chunk, receiver: the stack alone", 80.0, "stack/4-KiB-chunk-receiver")
    },
    Budget {
        without: Some("copy/4-KiB-chunk"),
        ..budget("4 KiB chunk, sender with the NIC in memory", 80.0, "stack/4-KiB-chunk-sender")
    },
    budget("4 KiB chunk, receiver with the NIC in memory", 80.0, "stack/4-KiB-chunk-receiver"),
];

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What has the budget.
    pub item: &'static str,
    /// The budget.
    pub budget_ns: f64,
    /// What it took, without what does not count.
    pub measured_ns: f64,
    /// Instructions, likewise.
    pub instructions: Option<f64>,
    /// Whether the budget is met.
    pub met: bool,
}

/// Budgets and all figures.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The processor.
    pub machine: String,
    /// Budgets.
    pub budgets: Vec<Row>,
    /// All cases.
    pub cases: Vec<Measured>,
}

impl Table {
    /// The table of these figures. Budgets whose cases were not measured are left out.
    pub fn new(machine: String, cases: Vec<Measured>) -> Self {
        let find = |name: &str| cases.iter().find(|case| case.name == name);
        let row = |budget: &Budget| {
            let whole = find(budget.case)?;
            let part = match budget.without {
                None => None,
                Some(name) => Some(find(name)?),
            };
            let measured_ns =
                whole.nanoseconds.median - part.map_or(0.0, |part| part.nanoseconds.median);
            let instructions = whole
                .instructions
                .map(|count| count - part.and_then(|part| part.instructions).unwrap_or(0.0));
            Some(Row {
                item: budget.item,
                budget_ns: budget.nanoseconds,
                measured_ns,
                instructions,
                met: measured_ns < budget.nanoseconds,
            })
        };
        let budgets = BUDGETS.iter().filter_map(row).collect();
        Self { machine, budgets, cases }
    }

    /// For people, in Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        text += "| item | budget | measured | instructions | |\n|---|---|---|---|---|\n";
        for row in &self.budgets {
            let count = row.instructions.map_or("-".into(), |count| format!("{count:.1}"));
            let verdict = if row.met { "met" } else { "**missed**" };
            let _ = writeln!(
                text,
                "| {} | {:.0} ns | {:.2} ns | {count} | {verdict} |",
                row.item, row.budget_ns, row.measured_ns
            );
        }
        text += "\n| case | median | 95 % interval | instructions | allocations |\n";
        text += "|---|---|---|---|---|\n";
        for case in &self.cases {
            let Nanoseconds { median, low, high } = case.nanoseconds;
            let count = case.instructions.map_or("-".into(), |count| format!("{count:.1}"));
            let allocations = case.allocations.map_or("-".into(), |count| count.to_string());
            let _ = writeln!(
                text,
                "| {} | {median:.2} ns | {low:.2} to {high:.2} | {count} | {allocations} |",
                case.name
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn measured(name: &str, median: f64) -> Measured {
        let nanoseconds = Nanoseconds { median, low: median, high: median };
        Measured { name: name.into(), nanoseconds, instructions: Some(100.0), allocations: None }
    }

    #[test]
    fn every_budget_has_its_cases() {
        let names: Vec<_> = cases::all().iter().map(|case| case.name).collect();
        for budget in BUDGETS {
            assert!(names.contains(&budget.case), "{}", budget.case);
            assert!(budget.without.is_none_or(|case| names.contains(&case)), "{}", budget.item);
        }
    }

    #[test]
    fn copies_do_not_count() {
        let cases =
            vec![measured("stack/4-KiB-chunk-sender", 130.0), measured("copy/4-KiB-chunk", 60.0)];
        let table = Table::new("a machine".into(), cases);
        // That of the stack alone needs what the NIC takes.
        let [row] = &table.budgets[..] else { panic!("{:?}", table.budgets) };
        assert_eq!((row.measured_ns, row.instructions, row.met), (70.0, Some(0.0), true));
        assert!(table.text().contains("| 80 ns | 70.00 ns | 0.0 | met |"), "{}", table.text());
    }
}
