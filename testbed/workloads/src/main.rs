//! `netchannel-workloads`: kernel TCP and this machine's limits on their own, as JSON. The
//! `netchannel perf` command compares NetChannel with them.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use netchannel_workloads::baseline::{MachineLimit, TcpBaseline};
use netchannel_workloads::child::{self, Launcher};
use netchannel_workloads::client::Client;
use netchannel_workloads::control::Conversation;
use netchannel_workloads::local::{LocalServer, announce};
use netchannel_workloads::rounds::Figure;
use netchannel_workloads::server::serve;
use netchannel_workloads::spec::{
    Amount, DEFAULT_BUFFER, EngineSettings, Load, RunSpec, Stack, TcpSettings, Tool,
};
use netchannel_workloads::tcp::Tcp;
use netchannel_workloads::{Error, Result};
use serde_json::json;

/// Bytes of the shared ring of the copy pipeline.
const WINDOW: usize = 4 << 20;
/// Rounds of each measurement.
const ROUNDS: usize = 5;

const USAGE: &str =
    "usage: netchannel-workloads baselines [SECONDS]   TCP and limits of this machine
       netchannel-workloads tcp-server ADDRESS    one side of TCP runs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["child", task] => child::run(task),
        ["tcp-server", address] => tcp_server(address).map(|()| String::new()),
        ["baselines"] => baselines(1.0),
        ["baselines", seconds] => seconds
            .parse()
            .map_err(|_| Error::Invalid(format!("`{seconds}` is no number of seconds")))
            .and_then(baselines),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("netchannel-workloads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves one client over kernel TCP, then ends.
fn tcp_server(address: &str) -> Result<()> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| Error::Invalid(format!("`{address}` is no address like 127.0.0.1:0")))?;
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    announce(listener.local_addr().map_err(failed)?)?;
    let mut conversation = Conversation::accept(&listener)?;
    serve(&mut conversation, &|spec, _| match spec.stack {
        Stack::Tcp => Ok(Box::new(Tcp::new(spec.tcp.clone(), None))),
        Stack::NetChannel => Err(Error::Invalid("this server speaks TCP only".into())),
    })
    .map(drop)
}

fn baselines(seconds: f64) -> Result<String> {
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|_| Error::Invalid(format!("`{seconds}` is no number of seconds")))?;
    let launcher = Launcher::this_program(&["child"])?;
    let server =
        LocalServer::start(&launcher.program, &["tcp-server".into(), "127.0.0.1:0".into()])?;
    let mut client = Client::connect(server.address())?;
    let mut lines = Vec::new();

    let bulk = spec(Tool::Bandwidth, DEFAULT_BUFFER, duration, false);
    let tcp = TcpBaseline::prepare(&mut client, &bulk, None)?;
    let copies = [2, 3].map(|copies| MachineLimit::prepare(&launcher, &bulk.load, copies, WINDOW));
    for _ in 0..ROUNDS {
        let tcp_figure = Figure::from(tcp.run(&mut client)?.moved);
        lines.push(json!({"tcp": tcp_figure, "write_size": tcp.write_size()}));
        for (limit, copies) in copies.iter().zip([2, 3]) {
            let limit = limit.as_ref().map_err(|error| Error::Invalid(error.to_string()))?;
            lines.push(json!({"limit": limit.run(&launcher)?, "copies": copies, "how": format!("{limit:?}")}));
        }
    }
    for spin in [true, false] {
        let small = spec(Tool::Latency, 64, duration, spin);
        let tcp = TcpBaseline::prepare(&mut client, &small, None)?;
        let limit = MachineLimit::prepare(&launcher, &small.load, 2, WINDOW)?;
        for _ in 0..ROUNDS {
            let report = tcp.run(&mut client)?;
            let figure = report.half_round_trips.map(Figure::from);
            lines.push(json!({"tcp": figure, "busy_polling": spin}));
            if spin {
                lines.push(json!({"limit": limit.run(&launcher)?}));
            }
        }
    }
    drop(client);
    server.wait()?;
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

fn spec(tool: Tool, size: usize, duration: Duration, spin: bool) -> RunSpec {
    RunSpec {
        stack: Stack::Tcp,
        load: Load::new(tool, size, Amount::Duration(duration)),
        engine: EngineSettings::default(),
        tcp: TcpSettings { spin, ..TcpSettings::default() },
    }
}
