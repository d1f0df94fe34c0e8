//! `perf` and `demo`: the form of their results.

mod common;

use std::fs;

use common::run;
use serde_json::Value;

/// Runs a measurement; its report.
fn perf(arguments: &[&str]) -> Value {
    let common = ["--local", "--json", "--device", "soft"];
    let (code, output, errors) = run(&[&["perf"], arguments, &common].concat());
    assert_eq!(code, 0, "{arguments:?}: {errors}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error} in {output}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The form that every report has.
fn check(report: &Value, tool: &str, tcp: bool, rounds: usize) {
    let mut expected = vec![
        "tool",
        "device",
        "reason",
        "size",
        "streams",
        "channels",
        "class",
        "policy",
        "congestion",
        "poller",
        "idle",
        "window",
        "copies",
        "netchannel",
        "limit",
        "limit_ratio",
        "bytes",
        "per_channel",
        "zero_copy",
        "copied_bytes",
        "moved_by_posting",
        "placed_out_of_order",
        "wakeups",
        "polling",
        "rounds",
    ];
    let mut stacks = vec!["netchannel", "limit"];
    if tool == "bw" {
        expected.push("processor_seconds_per_gb");
        let time = &report["processor_seconds_per_gb"];
        assert_eq!(keys(time).len(), 1 + usize::from(tcp), "{time}");
        assert!(time["netchannel"].as_f64().unwrap() > 0.0, "{time}");
    }
    if tcp {
        expected.extend(["tcp", "ratio", "tcp_write_size"]);
        stacks.push("tcp");
    }
    expected.sort_unstable();
    let mut found = keys(report);
    found.sort_unstable();
    assert_eq!(found, expected);

    assert_eq!(report["tool"], tool);
    let figures: &[&str] = if tool == "bw" { &["gbps"] } else { &["p50_us", "p999_us", "p99_us"] };
    let positive = |figure: &Value| {
        assert_eq!(keys(figure), figures);
        assert!(figures.iter().all(|name| figure[name].as_f64().unwrap() > 0.0), "{figure}");
    };
    let ratios: &[&str] = if tcp { &["ratio", "limit_ratio"] } else { &["limit_ratio"] };
    stacks.iter().chain(ratios).for_each(|stack| positive(&report[stack]));
    assert_eq!(report["rounds"].as_array().unwrap().len(), rounds);
    for round in report["rounds"].as_array().unwrap() {
        assert_eq!(keys(round).len(), stacks.len());
        stacks.iter().for_each(|stack| positive(&round[stack]));
    }

    let channels = report["per_channel"].as_array().unwrap();
    assert_eq!(channels.len() as u64, report["channels"].as_u64().unwrap());
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap();
    let sum: u64 = channels.iter().map(|channel| number(channel, "bytes")).sum();
    assert_eq!(sum, number(report, "bytes"), "{report}");
    for channel in channels {
        assert_eq!(keys(channel), ["bytes", "channel", "messages", "wire_bytes"]);
        assert!(number(channel, "wire_bytes") >= number(channel, "bytes"), "{channel}");
    }
    assert!((1..=3).contains(&number(report, "copies")));
    check_polling(report);
}

/// Who polled, on both sides.
fn check_polling(report: &Value) {
    for side in ["client", "server"] {
        let polling = &report["polling"][side];
        let expected = ["bulk_budget", "cores", "groups", "idle", "moves", "poller", "reason"];
        assert_eq!(keys(polling), expected, "{report}");
        assert_eq!(polling["poller"], report["poller"]);
        assert!(!polling["reason"].as_str().unwrap().is_empty());
        let cores = polling["cores"].as_array().unwrap();
        assert_eq!(cores.is_empty(), polling["poller"] == "inline", "{polling}");
        for core in cores {
            assert_eq!(keys(core), ["busy_s", "number", "passes", "processor"]);
            assert!(core["busy_s"].as_f64().unwrap() > 0.0, "{polling}");
        }
        let groups = polling["groups"].as_array().unwrap();
        assert_eq!(groups[0]["class"], "latency");
        assert!(groups.len() > 1);
        for group in groups {
            assert_eq!(keys(group), ["busy_s", "class", "core", "number", "passes"]);
            assert_eq!(group["core"].is_null(), cores.is_empty(), "{polling}");
        }
    }
}

#[test]
fn weights_are_shares() {
    // What each is bounded by is the link: the application's buffers are a small part of what is sent.
    let arguments = ["bw", "-D", "2", "--link", "rate=2gbit,delay=5us", "--weights", "1,3"];
    let report = perf(&arguments);
    let streams = report["per_stream"].as_array().unwrap();
    let weights: Vec<_> = streams.iter().map(|stream| stream["weight"].as_u64()).collect();
    assert_eq!((weights, &report["streams"]), (vec![Some(1), Some(3)], &2.into()));
    let bytes: Vec<_> = streams.iter().map(|stream| stream["bytes"].as_f64().unwrap()).collect();
    assert!((2.0..4.0).contains(&(bytes[1] / bytes[0])), "{report}");
    let (code, _, errors) = run(&["perf", "bw", "--local", "--weights", "1,17"]);
    assert_eq!(code, 2);
    assert!(errors.contains("weights are from 1 to 16"), "{errors}");
}

#[test]
fn who_polls_and_where_is_said() {
    let report = perf(&[
        "bw",
        "-n",
        "64",
        "--poller",
        "dedicated",
        "--idle",
        "sleep",
        "--pin",
        "1023",
        "--link",
        "rate=100gbit,delay=2us",
    ]);
    check_polling(&report);
    for side in ["client", "server"] {
        let polling = &report["polling"][side];
        let reason = polling["reason"].as_str().unwrap();
        assert!(reason.contains("core 0 is not bound to processor 1023"), "{reason}");
        assert!(polling["cores"][0]["processor"].is_null());
        // What the link carries in no time is no budget, nor is more than it carries in 1 ms.
        let budget = polling["bulk_budget"]["bytes"].as_u64().unwrap();
        assert!((1..12_500_000).contains(&budget), "{polling}");
    }
}

#[test]
fn bandwidth_has_one_form() {
    let report = perf(&["bw", "-n", "64", "--size", "256KiB", "--verify"]);
    check(&report, "bw", false, 1);
    assert_eq!(report["bytes"], 64 * 256 * 1024);
    assert_eq!((report["size"].as_u64(), report["channels"].as_u64()), (Some(256 << 10), Some(4)));
}

#[test]
fn zero_copy_copies_nothing() {
    let total = 64u64 * 256 * 1024;
    for poller in ["inline", "dedicated"] {
        let report =
            perf(&["bw", "-n", "64", "--size", "256KiB", "--zero-copy", "--poller", poller]);
        check(&report, "bw", false, 1);
        assert_eq!(report["zero_copy"], true);
        assert_eq!((&report["copied_bytes"], &report["bytes"]), (&0.into(), &total.into()));
        assert_eq!(report["moved_by_posting"], total);
        assert_eq!(report["copies"], 1, "so the limit is a pipeline with one copy");
    }
    // Comparing costs a copy, and compares.
    let report = perf(&["bw", "-n", "64", "--size", "100000", "--zero-copy", "--verify"]);
    check(&report, "bw", false, 1);
    assert!(report["copied_bytes"].as_u64().unwrap() >= 6_400_000);
}

#[test]
fn bandwidth_beside_tcp_in_rounds() {
    let report = perf(&[
        "bw",
        "-D",
        "0.05",
        "--vs",
        "tcp",
        "--rounds",
        "3",
        "--streams",
        "2",
        "--channels",
        "6",
    ]);
    check(&report, "bw", true, 3);
    assert_eq!(report["streams"], 2);
}

#[test]
fn latency_has_one_form() {
    let report = perf(&["lat", "-n", "200"]);
    check(&report, "lat", false, 1);
    assert_eq!((report["size"].as_u64(), report["idle"].as_str()), (Some(64), Some("spin")));
}

#[test]
fn latency_beside_tcp_with_sleep() {
    let report = perf(&["lat", "-n", "200", "--vs", "tcp", "--rounds", "2", "--idle", "sleep"]);
    check(&report, "lat", true, 2);
    assert_eq!(report["idle"], "sleep");
}

#[test]
fn a_dedicated_poller() {
    for tool in ["bw", "lat"] {
        let report = perf(&[tool, "-D", "0.05", "--poller", "dedicated", "--idle", "sleep"]);
        check(&report, tool, false, 1);
        assert_eq!(report["poller"], "dedicated");
    }
}

#[test]
fn people_get_a_table() {
    let arguments =
        ["perf", "bw", "--local", "--device", "soft", "-D", "0.05", "--vs", "tcp", "--rounds", "1"];
    let (code, output, errors) = run(&arguments);
    assert_eq!(code, 0, "{errors}");
    for word in ["#bytes", "Gb/sec", "NetChannel", "kernel TCP", "limit", "Channel", "100.0 %"] {
        assert!(output.contains(word), "{word} in {output}");
    }
}

#[test]
fn the_demo_moves_a_file_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.bin");
    fs::write(&input, vec![7; 5_000_000]).unwrap();
    let output = common::netchannel(&["demo", "--quick", "--device", "soft", "--input"])
        .arg(&input)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (code, output, errors) = common::outcome(&output);
    assert_eq!(code, 0, "{errors}");
    for word in ["5000000 bytes", "4 Channels", "equal (BLAKE3", "100.0 %"] {
        assert!(output.contains(word), "{word} in {output}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are gone");
}

#[test]
fn limits_have_one_form() {
    let arguments = ["perf", "limits", "-D", "0.01", "--size", "64KiB", "--json"];
    let (code, output, errors) = run(&arguments);
    assert_eq!(code, 0, "{errors}");
    let limits: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(keys(&limits), ["copy", "core_to_core", "pipeline", "processor", "processors"]);
    let positive = |value: &Value| assert!(value.as_f64().unwrap() > 0.0, "{limits}");
    let copies = limits["copy"].as_array().unwrap();
    let sets: Vec<_> = copies.iter().map(|copy| copy["working_set"].as_u64().unwrap()).collect();
    assert!(sets.is_sorted() && sets[0] <= 32 << 10 && sets[sets.len() - 1] >= 64 << 20);
    copies.iter().for_each(|copy| positive(&copy["gbps"]));
    let pipelines = limits["pipeline"].as_array().unwrap();
    assert_eq!(pipelines.len(), 2);
    for (pipeline, copies) in pipelines.iter().zip(1..) {
        assert_eq!(keys(pipeline), ["chunk", "copies", "gbps", "size", "window"]);
        assert_eq!((&pipeline["copies"], &pipeline["size"]), (&copies.into(), &65_536.into()));
        positive(&pipeline["gbps"]);
    }
    let times = &limits["core_to_core"];
    assert_eq!(keys(times), ["p50_us", "p999_us", "p99_us"]);
    positive(&times["p50_us"]);

    let (code, output, errors) = run(&["perf", "limits", "-D", "0.01"]);
    assert_eq!(code, 0, "{errors}");
    for word in ["16 KiB", "256 MiB", "1 copy", "2 copies", "99.9%"] {
        assert!(output.contains(word), "{word} in {output}");
    }
}

/// Channels are broken while bytes flow; every byte is compared.
#[test]
fn streams_outlive_channels_that_are_broken() {
    let report = perf(&["bw", "-D", "2", "--streams", "2", "--fail-channel-every", "100ms"]);
    let failover = &report["failover"];
    let number = |name: &str| failover[name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!(keys(failover).len(), 7, "{failover}");
    assert_eq!(failover["verified"], true);
    assert!(number("broken") >= 4.0, "{failover}");
    // Each on both sides; what both break at the same moment once.
    assert!(number("failovers") >= number("broken"), "{failover}");
    assert!(number("gap_max_us") >= number("gap_p50_us") && number("gap_p50_us") > 0.0);
    let channels = report["per_channel"].as_array().unwrap();
    let sum: u64 = channels.iter().map(|channel| channel["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum, report["bytes"].as_u64().unwrap());
}
