//! The conformance suite on the NIC in memory.

use netchannel_verbs::conformance;
use netchannel_verbs::soft::{Context, SoftOptions};

fn check(options: &SoftOptions) {
    let open = |seed| Context::open(SoftOptions { seed, ..options.clone() }).unwrap();
    let (a, b) = (open(options.seed), open(options.seed + 1));
    let report = conformance::run(&a, &b, |outcome| println!("{outcome}"));
    assert!(report.passed(), "{report}");
    assert_eq!(a.reuse_violations() + b.reuse_violations(), 0);
}

#[test]
fn at_once() {
    check(&SoftOptions::default());
}
