//! `RangeSet` against the obvious model: a set of byte numbers.

use std::collections::BTreeSet;

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Remove(u64, u64),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u64..64, 0u64..16).prop_map(|(s, l)| Op::Insert(s, l)),
        2 => (0u64..64, 0u64..16).prop_map(|(s, l)| Op::Remove(s, l)),
        1 => (0u64..64).prop_map(Op::Advance),
    ]
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(StreamOffset::new(start), len).unwrap()
}

proptest! {
    #[test]
    fn behaves_like_a_set_of_bytes(ops in prop::collection::vec(op(), 0..40)) {
        let mut set = RangeSet::default();
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Insert(s, l) => {
                    let new = (s..s + l).filter(|b| model.insert(*b)).count() as u64;
                    prop_assert_eq!(set.insert(range(s, l)), new);
                }
                Op::Remove(s, l) => {
                    set.remove(range(s, l));
                    model.retain(|b| !(s..s + l).contains(b));
                }
                Op::Advance(from) => {
                    // Bytes below `from` that touch it count as one run with it.
                    let at = set.advance(StreamOffset::new(from)).get();
                    let mut expected = from;
                    while model.contains(&expected) {
                        expected += 1;
                    }
                    prop_assert_eq!(at, expected);
                    model.retain(|b| *b > expected);
                }
            }
            let bytes: Vec<u64> =
                set.iter().flat_map(|r| r.start.get()..r.end.get()).collect();
            prop_assert_eq!(&bytes, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.bytes(), model.len() as u64);
            // Disjoint and not even adjacent.
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            for s in 0..70u64 {
                for l in [1u64, 3] {
                    let all = (s..s + l).all(|b| model.contains(&b));
                    prop_assert_eq!(set.contains(range(s, l)), all);
                }
            }
        }
    }
}
