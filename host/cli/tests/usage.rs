//! Exit codes and messages for what is wrong from the start, and the help.

mod common;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use common::{netchannel, run};

#[test]
fn wrong_arguments_are_wrong_usage() {
    for (arguments, says) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&[], "Usage:"),
        (&["send", "file"], "<ADDR>"),
        (&["send", "file", "192.0.2.7"], "has no port"),
        (&["send", "file", "::1:5"], "needs brackets"),
        (&["recv"], "--listen"),
        (&["recv", "--listen", "127.0.0.1:0", "--json"], "name a file with -o"),
        (&["recv", "--listen", "127.0.0.1:0", "--policy", "luck"], "least-delay"),
        (&["perf", "bw", "--size", "0"], "at least 1 byte"),
        (&["perf", "bw", "--size", "1 elephant"], "64KiB"),
        (&["perf", "lat", "--iters", "0"], "0"),
        (&["perf", "lat", "--iters", "5", "--duration", "1"], "cannot be used with"),
        (&["perf", "lat", "--vs", "quic"], "tcp"),
        (&["perf", "lat", "localhost", "--local"], "cannot be used with"),
        (&["perf", "lat", "a b"], "names no host"),
        (&["recv", "--listen", "127.0.0.1:0", "--channels", "65"], "must be 1 to 64"),
        (&["recv", "--listen", "127.0.0.1:0", "--window", "65537"], "power of two"),
        (&["devices", "--log", "=bad="], "log level"),
        (&["devices", "--log", "warning"], "`warning` is no level"),
        (&["perf", "bw", "--local", "--port", "5"], "cannot be used with"),
        (&["perf", "bw", "--local", "--interface", "lo"], "--vs tcp"),
        (&["perf", "lat", "--local", "--weights", "1,3"], "--weights is for bw"),
        (&["perf", "bw", "--local", "--pollers", "2"], "--poller dedicated"),
        (&["send", "file", "127.0.0.1:9", "--pin", "0"], "--poller dedicated"),
        (&["send", "--attach", "/x", "--channels", "8", "f", "127.0.0.1:9"], "--channels is for"),
        (&["perf", "bw", "--local", "--attach", "/x", "--channels", "8"], "--channels is for"),
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_settings_file_with_a_mistake_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, "device = \"soft\"\nchanels = 4\n").unwrap();
    let path = path.to_str().unwrap();
    let (code, _, errors) = run(&["--config", path, "devices"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("unknown field `chanels`") && errors.contains(path), "{errors}");

    for (text, says) in [
        ("chunk = 3\n", "chunk is 3 bytes, must be 0 (chosen by device) or from 4096"),
        ("[keepalive]\ninterval_ms = 0\n", "keepalive.interval_ms is 0, must be 50 to 60000"),
        ("[rdma]\nmtu = 1500\n", "rdma.mtu is 1500, must be 256, 512, 1024, 2048 or 4096"),
        ("[soft.link]\nloss = 2.0\n", "soft.link.loss is 2"),
        ("[rdma]\nport = \"one\"\n", "port = \"one\""),
    ] {
        std::fs::write(path, text).unwrap();
        let (code, _, errors) = run(&["--config", path, "recv", "--listen", "127.0.0.1:0"]);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(path) && errors.contains(says), "{errors}");
    }
    // What an argument says is not the file's mistake, and may mend what does not fit together there.
    std::fs::write(path, "groups = 8\ndevice = \"soft\"\n").unwrap();
    let recv = ["--config", path, "recv", "--listen", "192.0.2.7:4000"];
    let (code, _, errors) = run(&recv);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("groups is 8") && errors.contains(path), "{errors}");
    let (code, _, errors) = run(&[&recv[..], &["--channels", "8"]].concat());
    assert_eq!(code, 6, "{errors}");
    let (code, _, errors) = run(&[&recv[..], &["--channels", "65"]].concat());
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("channels is 65") && !errors.contains(path), "{errors}");

    let (code, _, errors) = run(&["--config", "/nowhere.toml", "devices"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("/nowhere.toml") && errors.contains("No such file"), "{errors}");
}

#[test]
fn a_settings_file_counts_and_arguments_go_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, "device = \"nosuch0\"\n").unwrap();
    let config = ["--config", path.to_str().unwrap()];
    let perf = ["perf", "bw", "--local", "-n", "1", "--size", "64K"];
    let (code, _, errors) = run(&[&config[..], &perf].concat());
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("nosuch0"), "{errors}");
    let (code, _, errors) = run(&[&config[..], &perf, &["--device", "soft"]].concat());
    assert_eq!(code, 0, "{errors}");
}

#[test]
fn an_unknown_device_is_said_with_the_known_ones() {
    for arguments in [
        &["recv", "--listen", "127.0.0.1:0", "--device", "nosuch0"][..],
        &["send", "/dev/null", "127.0.0.1:9", "--device", "nosuch0"],
        &["perf", "bw", "--device", "nosuch0"],
        &["perf", "bw", "--local", "--device", "nosuch0"],
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 3, "{arguments:?}: {errors}");
        assert!(errors.contains("nosuch0") && errors.contains("soft"), "{errors}");
        assert!(errors.contains("netchannel devices"), "{errors}");
    }
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, errors) = run(&["recv", "--device", "soft", "--listen", &address]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains(&address) && errors.contains("in use"), "{errors}");
    assert!(errors.contains("Choose another"), "{errors}");

    let everywhere = TcpListener::bind("[::]:0").unwrap();
    let port = everywhere.local_addr().unwrap().port().to_string();
    let (code, _, errors) = run(&["perf", "bw", "--device", "soft", "-p", &port]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains(&port) && errors.contains("in use"), "{errors}");
}

#[test]
fn an_address_of_somebody_else() {
    let (code, _, errors) = run(&["recv", "--device", "soft", "--listen", "192.0.2.7:4000"]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains("192.0.2.7:4000"), "{errors}");
    assert!(errors.contains("no interface of this host"), "{errors}");

    let (code, _, errors) = run(&["recv", "--device", "soft", "--listen", "nosuch.invalid:4000"]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains("nosuch.invalid"), "{errors}");
}

#[test]
fn nobody_there() {
    // Bound and let go: nobody listens on this port.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, port) = (free.to_string(), free.port().to_string());
    for arguments in [
        &["send", "/dev/null", &address, "--device", "soft"][..],
        &["perf", "bw", "127.0.0.1", "-p", &port, "--device", "soft"],
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 4, "{arguments:?}: {errors}");
        let asks = errors.contains("started") || errors.contains("listening there?");
        assert!(errors.contains(&address) && asks, "{errors}");
    }
}

#[test]
fn a_name_without_an_address() {
    let (code, _, errors) = run(&["send", "/dev/null", "nosuch.invalid:4792"]);
    assert_eq!(code, 4, "{errors}");
    assert!(errors.contains("nosuch.invalid"), "{errors}");
}

#[test]
fn files_that_cannot_be() {
    let (code, _, errors) = run(&["send", "/no/such/file", "127.0.0.1:9"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("/no/such/file"), "{errors}");

    let (code, _, errors) = run(&["send", "/tmp", "127.0.0.1:9"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("tar c /tmp"), "{errors}");

    // Not even root may make a file there.
    for output in ["/no/such/folder/file", "/tmp", "/proc/file"] {
        let (code, _, errors) = run(&["recv", "--listen", "127.0.0.1:0", "-o", output]);
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains(output), "{errors}");
    }
}

#[test]
fn devices_are_listed() {
    let (code, output, _) = run(&["devices"]);
    assert_eq!(code, 0);
    assert!(output.contains("soft (soft)") && output.contains("offload plan"), "{output}");

    let (code, output, _) = run(&["devices", "--json"]);
    assert_eq!(code, 0);
    let list: serde_json::Value = serde_json::from_str(&output).unwrap();
    let devices = list["devices"].as_array().unwrap();
    let soft = devices.iter().find(|device| device["name"] == "soft").unwrap();
    assert_eq!(soft["provider"], "soft");
    for row in soft["offload_plan"].as_array().unwrap() {
        for key in ["function", "by", "query", "value", "reason"] {
            assert!(row[key].is_string(), "{key} in {row}");
        }
    }
    for missing in list["unavailable"].as_array().unwrap() {
        assert!(missing["provider"].is_string() && missing["reason"].is_string(), "{missing}");
    }
}

#[test]
fn one_device_is_listed() {
    let (code, output, _) = run(&["devices", "--device", "soft", "--json"]);
    assert_eq!(code, 0);
    let list: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(list["devices"].as_array().unwrap().len(), 1);

    let (code, output, errors) = run(&["--device", "nosuch0", "devices"]);
    assert_eq!((code, output.as_str()), (3, ""), "{errors}");
    assert!(errors.contains("nosuch0") && errors.contains("soft"), "{errors}");
}

#[test]
fn a_demo_that_cannot_be_ends_as_what_it_runs_would() {
    for (arguments, wanted) in [
        (&["demo", "--quick", "--device", "nosuch0", "--input", "/dev/null"][..], 3),
        (&["demo", "--quick", "--device", "soft", "--input", "/tmp"], 2),
        (&["demo", "--quick", "--device", "soft", "--input", "/no/such/file"], 1),
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, wanted, "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn where_nothing_can_be_written() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    // What was asked for is lost: an error.
    for arguments in [&["devices"][..], &["devices", "--json"]] {
        let result = netchannel(arguments).stdout(full()).output().unwrap();
        assert_eq!(result.status.code(), Some(1));
        let errors = String::from_utf8(result.stderr).unwrap();
        assert!(errors.contains("standard output"), "{errors}");
    }
    // What was to be said is lost: the exit code still tells.
    for arguments in [
        &["send", "/no/such/file", "127.0.0.1:9"][..],
        &["--log", "debug", "recv", "--device", "soft", "--listen", "192.0.2.7:4000"],
    ] {
        let wanted = run(arguments).0;
        let status = netchannel(arguments).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(wanted), "{arguments:?}");
    }
}

#[test]
fn a_server_whose_client_leaves_says_so() {
    let mut server = netchannel(&["perf", "bw", "--device", "soft", "--port", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waiting = lines.next().unwrap();
    let port: u16 = waiting.rsplit(' ').next().unwrap().parse().unwrap();
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let said: Vec<_> = lines.collect();
    assert_eq!(server.wait().unwrap().code(), Some(5), "{said:?}");
    assert!(said.iter().any(|line| line.contains("the client left")), "{said:?}");
}

#[test]
fn the_log_has_colours_on_terminals_only() {
    let arguments = ["--log", "info", "send", "--device", "soft", "/dev/null", "127.0.0.1:9"];
    let (_, _, errors) = run(&arguments);
    assert!(errors.contains("INFO") && !errors.contains('\u{1b}'), "{errors}");
}

#[test]
fn help() {
    for (name, arguments) in [
        ("netchannel", &["--help"][..]),
        ("devices", &["devices", "--help"]),
        ("demo", &["demo", "--help"]),
        ("recv", &["recv", "--help"]),
        ("send", &["send", "--help"]),
        ("engine", &["engine", "--help"]),
        ("perf", &["perf", "--help"]),
        ("perf_bw", &["perf", "bw", "--help"]),
        ("perf_lat", &["perf", "lat", "--help"]),
        ("perf_limits", &["perf", "limits", "--help"]),
        ("perf_isolation", &["perf", "isolation", "--help"]),
    ] {
        let (code, output, _) = run(arguments);
        assert_eq!(code, 0);
        insta::assert_snapshot!(name, output);
    }
}
