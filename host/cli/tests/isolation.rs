//! `perf isolation`: the form of its result, and what it leaves behind.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{netchannel, outcome, run};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

const LINK: [&str; 5] = ["perf", "isolation", "--local", "--link", "rate=1gbit,delay=5us"];
/// Of each run.
const SECONDS: f64 = 0.3;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn check(stack: &Value, link_gbps: f64) {
    assert_eq!(keys(stack), ["alone", "beside", "bulk_share", "link_share", "p99_ratio"]);
    let number = |run: &str, name: &str| stack[run][name].as_f64().unwrap();
    for run in ["alone", "beside"] {
        let expected = ["bulk_gbps", "p50_us", "p999_us", "p99_us", "ping_gbps", "pings"];
        assert_eq!(keys(&stack[run]), expected);
        let sent = number(run, "pings") * 4096.0 * 8.0 / SECONDS / 1e9;
        assert!(sent > 0.0 && (number(run, "ping_gbps") - sent).abs() < 1e-9, "{stack}");
        assert!(number(run, "p50_us") > 0.0, "{stack}");
        assert!(number(run, "p999_us") >= number(run, "p99_us"), "{stack}");
    }
    assert_eq!(number("alone", "bulk_gbps"), 0.0);
    let bulk = number("beside", "bulk_gbps");
    assert!(bulk > 0.0 && bulk < 1.1 * link_gbps, "{bulk} Gb/s over {link_gbps} Gb/s");
    let share = |name: &str| stack[name].as_f64().unwrap();
    assert!((share("bulk_share") - bulk / link_gbps).abs() < 1e-9);
    let all = bulk + number("beside", "ping_gbps");
    assert!((share("link_share") - all / link_gbps).abs() < 1e-9);
    let ratio = number("beside", "p99_us") / number("alone", "p99_us");
    assert!((stack["p99_ratio"].as_f64().unwrap() - ratio).abs() < 1e-9);
}

#[test]
fn isolation_has_one_form() {
    let (code, output, errors) = run(&[&LINK[..], &["-D", "0.3", "--json"]].concat());
    assert_eq!(code, 0, "{errors}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let mut expected = vec![
        "bulk_size",
        "bulk_streams",
        "channels",
        "duration_s",
        "idle",
        "interval_us",
        "latency_channels",
        "link",
        "netchannel",
        "poller",
        "processors",
        "size",
        "tool",
    ];
    if report["processors"].is_null() {
        // There is one.
        expected.retain(|key| *key != "processors");
    }
    assert_eq!(keys(&report), expected);
    assert_eq!((&report["poller"], &report["interval_us"]), (&"dedicated".into(), &1000.0.into()));
    assert_eq!(
        (&report["size"], &report["bulk_size"], &report["idle"]),
        (&4096.into(), &10_000_000.into(), &"sleep".into())
    );
    let link = &report["link"];
    assert_eq!(keys(link), ["delay_us", "ecn_threshold", "loss", "queue", "rate_gbps"]);
    assert_eq!((&link["rate_gbps"], &link["delay_us"]), (&1.0.into(), &5.0.into()));
    check(&report["netchannel"], 1.0);
    // The link serialises 4 KiB, and then delays it.
    let alone = report["netchannel"]["alone"]["p50_us"].as_f64().unwrap();
    assert!(alone >= 4096.0 * 8.0 / 1e3 + 5.0, "{alone} us through the link");
}

#[test]
fn mistakes_are_named() {
    for (arguments, wrong) in [
        (&["perf", "isolation"][..], "--local"),
        (&["perf", "isolation", "--local", "--link", "rate=fast"], "no rate"),
        (
            &["perf", "isolation", "--local", "--link", "rate=1gbit", "-d", "mlx5_0"],
            "--device soft",
        ),
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {errors}");
        assert!(errors.contains(wrong), "{arguments:?}: {errors}");
    }
}

/// Network namespaces of a process of this program.
fn namespaces(pid: u32) -> bool {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let (_, list, _) = outcome(&output);
    list.lines().any(|line| line.split_whitespace().next() == Some(&format!("netchannel-{pid}")))
}

/// The form beside kernel TCP, and what a signal leaves behind: one test, because two at once take
/// time from one another.
#[test]
fn kernel_tcp_has_the_same_link_while_it_is_measured() {
    let mut command = netchannel(&[&LINK[..], &["-D", "0.3", "--vs", "tcp", "--json"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (code, output, errors) = outcome(&child.wait_with_output().unwrap());
    if !geteuid().is_root() {
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains("needs root"), "{errors}");
        return;
    }
    if errors.contains("Operation not permitted") {
        eprintln!("skipped: this root may make no network namespace: {errors}");
        return;
    }
    assert_eq!(code, 0, "{errors}");
    let report: Value = serde_json::from_str(&output).unwrap();
    check(&report["tcp"], 1.0);
    assert!(report["tcp_link"].as_str().unwrap().contains("token bucket"), "{report}");
    assert!(!namespaces(pid), "the namespace is gone");

    let mut command = netchannel(&[&LINK[..], &["-D", "30", "--vs", "tcp"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !namespaces(child.id()) {
        assert!(Instant::now() < deadline, "the command makes no namespace");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!namespaces(child.id()), "the namespace is gone after an interrupt");
}
