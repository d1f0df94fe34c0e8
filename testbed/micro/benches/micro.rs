//! Time of every case: `cargo bench -p netchannel-micro [NAME]`. `scripts/bench-micro` puts the
//! medians beside the budgets.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use netchannel_micro::cases;

fn all(criterion: &mut Criterion) {
    for case in cases::all() {
        let (layer, what) = case.name.split_once('/').unwrap_or(("", case.name));
        criterion.benchmark_group(layer).bench_function(what, |bencher| {
            let mut bench = case.warm();
            bencher.iter_custom(|operations| case.time(&mut *bench, operations));
        });
    }
}

criterion_group! {
    name = micro;
    config = Criterion::default()
        .sample_size(60)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500));
    targets = all
}
criterion_main!(micro);
