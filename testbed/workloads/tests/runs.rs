//! Runs between real processes: kernel TCP over the control protocol, and the machine's limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use netchannel_workloads::baseline::{MachineLimit, TcpBaseline};
use netchannel_workloads::child::Launcher;
use netchannel_workloads::client::Client;
use netchannel_workloads::local::LocalServer;
use netchannel_workloads::rounds::Figure;
use netchannel_workloads::spec::{
    Amount, Bulk, EngineSettings, Load, RunSpec, Stack, TcpSettings, Tool,
};
use netchannel_workloads::tcp::Tcp;
use netchannel_workloads::{Error, child};

const PROGRAM: &str = env!("CARGO_BIN_EXE_netchannel-workloads");

fn launcher() -> Launcher {
    Launcher { program: PROGRAM.into(), arguments: vec!["child".into()] }
}

fn server() -> LocalServer {
    LocalServer::start(Path::new(PROGRAM), &["tcp-server".into(), "127.0.0.1:0".into()]).unwrap()
}

fn spec(tool: Tool, size: usize, amount: Amount) -> RunSpec {
    RunSpec {
        stack: Stack::Tcp,
        load: Load { verify: true, ..Load::new(tool, size, amount) },
        engine: EngineSettings::default(),
        tcp: TcpSettings::default(),
    }
}

#[test]
fn latency_beside_bulk_streams() {
    let server = server();
    let mut client = Client::connect(server.address()).unwrap();
    let mut spec = spec(Tool::Latency, 64, Amount::Iterations(2_000));
    spec.load.bulk = Some(Bulk { streams: 2, size: 1_000_000 });
    let report = client.run(&spec, Box::new(Tcp::new(spec.tcp.clone(), None))).unwrap();
    assert_eq!(report.half_round_trips.unwrap().count, 2_000);
    assert!(report.moved.bytes > 0 && report.moved.bytes.is_multiple_of(1_000_000));
    assert!(report.processor > std::time::Duration::ZERO);
    spec.load.tool = Tool::Bandwidth;
    let error = client.run(&spec, Box::new(Tcp::new(spec.tcp.clone(), None))).unwrap_err();
    assert!(error.to_string().contains("latency run only"), "{error}");
    drop(client);
    server.wait().unwrap();
}

#[test]
fn tcp_moves_every_byte_of_every_stream() {
    let server = server();
    let mut client = Client::connect(server.address()).unwrap();
    let mut spec = spec(Tool::Bandwidth, 100_000, Amount::Iterations(20));
    spec.load.write_size = 30_000;
    spec.load.streams = 3;
    let transport = Box::new(Tcp::new(spec.tcp.clone(), None));
    let report = client.run(&spec, transport).unwrap();
    assert_eq!(report.moved.bytes, 3 * 20 * 100_000);
    assert!(report.moved.gbps() > 0.0);
    drop(client);
    server.wait().unwrap();
}

#[test]
fn tcp_with_its_best_write_size() {
    let server = server();
    let mut client = Client::connect(server.address()).unwrap();
    let spec = spec(Tool::Bandwidth, 70_000, Amount::Duration(Duration::from_millis(50)));
    let tcp = TcpBaseline::prepare(&mut client, &spec, None).unwrap();
    assert!([16 << 10, 64 << 10, 70_000].contains(&tcp.write_size()), "{}", tcp.write_size());
    assert!(tcp.run(&mut client).unwrap().moved.bytes >= 70_000);
}

#[test]
fn tcp_latency_blocking_and_busy_polling() {
    let server = server();
    let mut client = Client::connect(server.address()).unwrap();
    for spin in [false, true] {
        let mut spec = spec(Tool::Latency, 64, Amount::Iterations(50));
        spec.load.streams = 2;
        spec.tcp.spin = spin;
        let tcp = TcpBaseline::prepare(&mut client, &spec, Some("lo".into())).unwrap();
        let times = tcp.run(&mut client).unwrap().half_round_trips.unwrap();
        assert_eq!(times.count, 2 * 50);
        assert!(times.min_ns > 0 && times.p50_ns <= times.p99_ns && times.p99_ns <= times.max_ns);
    }
}

#[test]
fn limits_of_the_machine() {
    let amount = Amount::Iterations(40);
    for copies in 1..=3 {
        let load = spec(Tool::Bandwidth, 1_000_000, amount).load;
        let limit = MachineLimit::prepare(&launcher(), &load, copies, 1 << 20).unwrap();
        let MachineLimit::Pipeline(pipeline) = &limit else { panic!("{limit:?}") };
        assert_eq!(pipeline.run(&launcher()).unwrap().bytes, 40_000_000);
    }
    let load = spec(Tool::Latency, 64, amount).load;
    let limit = MachineLimit::prepare(&launcher(), &load, 2, 1 << 20).unwrap();
    let figure = limit.run(&launcher()).unwrap();
    assert!(matches!(figure, Figure::Latency { p50_us, .. } if p50_us > 0.0), "{figure:?}");
}

#[test]
fn impossible_runs_are_refused() {
    let server = server();
    let mut client = Client::connect(server.address()).unwrap();
    let empty = spec(Tool::Bandwidth, 0, Amount::Iterations(1));
    let transport = Box::new(Tcp::new(TcpSettings::default(), None));
    assert!(matches!(client.run(&empty, transport), Err(Error::Invalid(_))));

    let mut strange = spec(Tool::Bandwidth, 10, Amount::Iterations(1));
    strange.tcp.congestion = "carrier-pigeon".into();
    let transport = Box::new(Tcp::new(TcpSettings::default(), None));
    let error = client.run(&strange, transport).unwrap_err();
    assert!(matches!(&error, Error::Peer(text) if text.contains("carrier-pigeon")), "{error}");

    let load = spec(Tool::Bandwidth, 10, Amount::Iterations(1)).load;
    assert!(
        MachineLimit::prepare(&launcher(), &load, 9, 1 << 20).unwrap().run(&launcher()).is_err()
    );
    assert!(child::run("{}").is_err());
}

#[test]
fn a_stranger_gets_a_clear_answer() {
    for (said, answer) in [
        ("GET / HTTP/1.1\r\n\r\n", "something unexpected"),
        ("{\"hello\":99}\n", "version 2, the client version 99"),
        ("{\"run\":{}}\n", "something unexpected"),
    ] {
        let server = server();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("failed") && text.contains(answer), "{said:?} got {text:?}");
        assert!(matches!(server.wait(), Err(Error::Child { .. })));
    }
}

/// A port where something else listens: it hangs up at words that it does not know.
#[test]
fn somebody_else_there() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let hangs_up = std::thread::spawn(move || drop(other.accept()));
    let error = Client::connect(address).err().unwrap();
    assert!(error.to_string().contains("is it `netchannel perf`"), "{error}");
    hangs_up.join().unwrap();
}

#[test]
fn nobody_there() {
    // Bound and let go: nobody listens on this port.
    let address: SocketAddr =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::connect(address).err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}
