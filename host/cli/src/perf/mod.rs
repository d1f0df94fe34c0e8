//! `netchannel perf`.
//!
//! - [`plan`]: arguments into a run. [`table`]: the result for people.
//! - [`isolation`]: a latency stream beside bulk streams. [`limits`]: what this machine can do without a stack.

mod isolation;
mod limits;
pub(crate) mod plan;
pub(crate) mod table;

use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context;
use netchannel_workloads::child::{self, Launcher};
use netchannel_workloads::client::Client;
use netchannel_workloads::compare::Comparison;
use netchannel_workloads::control::Conversation;
use netchannel_workloads::local::{LocalServer, announce};
use netchannel_workloads::netchannel::NetChannel;
use netchannel_workloads::report::Report;
use netchannel_workloads::rounds::Round;
use netchannel_workloads::server::serve;
use netchannel_workloads::spec::Stack;
use netchannel_workloads::tcp::Tcp;
use netchannel_workloads::{Error, spec::Tool};

use crate::address::Address;
use crate::arguments::{MeasureArgs, PerfTool};
use crate::config::Settings;
use crate::output;
use crate::problem::Problem;
use plan::Plan;

/// Name of the hidden command that the processes of a limit run.
const CHILD: &str = "child";

/// Measures, or serves who measures.
pub(crate) fn run(tool: &PerfTool, settings: Settings) -> anyhow::Result<()> {
    let (tool, arguments) = match tool {
        PerfTool::Bw(arguments) => (Tool::Bandwidth, arguments),
        PerfTool::Lat(arguments) => (Tool::Latency, arguments),
        PerfTool::Limits(arguments) => return limits::run(arguments),
        PerfTool::Isolation(arguments) => return isolation::run(arguments, settings),
    };
    check(tool, arguments)?;
    let mut plan = Plan::new(tool, arguments, settings);
    if let (true, Some(path)) = (arguments.local, &arguments.attach.attach) {
        output::say(&format!(
            "this process, the client, is attached to the engine at {}; the server process has an engine \
             of its own",
            path.display()
        ));
    }
    let report = match &arguments.host {
        Some(host) => {
            let address =
                Address::with_default_port(host, arguments.port).map_err(Problem::Usage)?;
            let report = address.reach(|address| {
                plan.settings.stack = plan.settings.stack_at(address.ip(), false);
                against(address, &plan, &mut say_round(&plan))
            });
            Some(report?)
        }
        None if arguments.local => Some(locally(&plan, &mut say_round(&plan))?),
        None => server(arguments, &plan)?,
    };
    match report {
        Some(report) if arguments.json => output::print_json(&report),
        Some(report) => Ok(output::print(&table::show(&report))?),
        None => Ok(()),
    }
}

/// Refuses what would have no effect.
fn check(tool: Tool, arguments: &MeasureArgs) -> Result<(), Problem> {
    let client = arguments.local || arguments.host.is_some();
    let text = if tool == Tool::Latency && !arguments.weights.is_empty() {
        "--weights is for bw: streams share by weight while all of them have bytes, and a latency \
         stream waits for its answer"
    } else if client && arguments.interface.is_some() && arguments.vs.is_none() {
        "--interface is for kernel TCP: say --vs tcp as well"
    } else {
        return Ok(());
    };
    Err(Problem::Usage(text.into()))
}

/// Tells of each round while there are more to come.
fn say_round(plan: &Plan) -> impl FnMut(usize, &Round) + use<> {
    let rounds = plan.rounds;
    move |number, round| {
        if rounds > 1 {
            output::say(&format!("round {number} of {rounds}: {}", table::round(round)));
        }
    }
}

/// Measures between this process and a server process of its own.
pub(crate) fn locally(
    plan: &Plan,
    on_round: &mut dyn FnMut(usize, &Round),
) -> anyhow::Result<Report> {
    let mut arguments: Vec<OsString> =
        ["perf", "bw", "--with-parent", "--port=0"].map(Into::into).into();
    arguments.extend(plan.settings.arguments.iter().map(Into::into));
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let server = LocalServer::start(&program, &arguments)?;
    let report = against(server.address(), plan, on_round)?;
    server.wait()?;
    Ok(report)
}

/// Measures against a server.
fn against(
    address: SocketAddr,
    plan: &Plan,
    on_round: &mut dyn FnMut(usize, &Round),
) -> anyhow::Result<Report> {
    let launcher = Launcher::this_program(&[CHILD])?;
    let mut client = Client::connect(address)?;
    let comparison = Comparison {
        spec: plan.spec.clone(),
        config: &plan.settings.stack,
        tcp: plan.tcp,
        interface: plan.interface.clone(),
        rounds: plan.rounds,
        launcher: &launcher,
    };
    let report = comparison.run(&mut client, on_round)?;
    client.tell(&report)?;
    Ok(report)
}

/// Serves one client.
fn server(arguments: &MeasureArgs, plan: &Plan) -> anyhow::Result<Option<Report>> {
    let listener = if arguments.with_parent {
        child::end_with_parent()?;
        let listener = listen(SocketAddr::new(arguments.bind, arguments.port))?;
        announce(listener.local_addr().context("cannot tell the own address")?)?;
        listener
    } else {
        // A device that does not exist is better found now than when a client comes.
        NetChannel::start(&plan.settings.stack, &plan.spec.engine)?;
        let listener = listen_everywhere(arguments.port)?;
        let address = listener.local_addr().context("cannot tell the own address")?;
        output::say(&format!("waiting for a client on port {}", address.port()));
        listener
    };
    let mut conversation = Conversation::accept(&listener)?;
    let report = serve(&mut conversation, &|spec, ip| match spec.stack {
        Stack::NetChannel => {
            let stack = plan.settings.stack_at(ip, arguments.with_parent);
            Ok(Box::new(NetChannel::start(&stack, &spec.engine)?))
        }
        Stack::Tcp => Ok(Box::new(Tcp::new(spec.tcp.clone(), plan.interface.clone()))),
    })?;
    match report {
        _ if arguments.with_parent => Ok(None),
        Some(report) => Ok(Some(report)),
        None => Err(Problem::ClientLeft.into()),
    }
}

/// All addresses of this host, of both families where there are two.
fn listen_everywhere(port: u16) -> Result<TcpListener, Error> {
    match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(Error::Listen { source, .. }) if source.kind() != std::io::ErrorKind::AddrInUse => {
            listen(SocketAddr::from(([0, 0, 0, 0], port)))
        }
        other => other,
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source })
}
