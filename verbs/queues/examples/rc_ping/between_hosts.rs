//! The same between two hosts, which exchange addresses and keys over TCP.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::work::{Opcode, SendOperation};
use netchannel_verbs::{Endpoint, MemoryRegion, QueuePair, RemoteKey};

use super::side::Side;
use super::{Failure, Host, Options, report};

/// What the other host does between two meetings takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory of the other host.
#[derive(Clone, Copy)]
struct Remote {
    address: u64,
    key: RemoteKey,
    half: u64,
}

/// One host of the two.
pub(crate) fn run(host: Host, options: &Options) -> Result<(), Failure> {
    let mut side = Side::new(&options.device, options)?;
    let stream = match host {
        Host::Listen(address) => {
            let listener = TcpListener::bind(address)?;
            println!("listening on {address}");
            listener.accept()?.0
        }
        Host::Connect(address) => TcpStream::connect(address)?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut talk = Talk(BufReader::new(stream));
    let remote = talk.introduce(&mut side)?;
    match host {
        // Nothing may be sent before the other side has a receive posted.
        Host::Listen(_) => {
            side.receive()?;
            talk.meet()?;
            report("SEND", options, || answer(&mut side, options))?;
        }
        Host::Connect(_) => {
            talk.meet()?;
            report("SEND", options, || ask(&mut side, options))?;
            report("WRITE and READ", options, || there_and_back(&mut side, remote, options))?;
        }
    }
    // Memory and queue pair stay until the other host is done with them.
    talk.meet()?;
    side.pair.close()?;
    Ok(side.memory.close()?)
}

fn ask(side: &mut Side, options: &Options) -> Result<(), Failure> {
    for round in 0..options.count {
        side.receive()?;
        side.fill(round);
        side.send(SendOperation::SendWithImmediate(round), options.bytes)?;
        let back = side.wait(Opcode::Receive)?;
        side.check(round + 1, back.bytes as usize)?;
    }
    Ok(())
}

fn answer(side: &mut Side, options: &Options) -> Result<(), Failure> {
    for round in 0..options.count {
        let arrived = side.wait(Opcode::Receive)?;
        side.check(round, arrived.bytes as usize)?;
        if arrived.immediate != Some(round) {
            return Err(format!("immediate {:?} in round {round}", arrived.immediate).into());
        }
        // The next question comes after this answer.
        side.receive()?;
        side.fill(round + 1);
        side.send(SendOperation::Send, options.bytes)?;
    }
    Ok(())
}

/// WRITEs into the memory of the other host, and READs from there what was written.
fn there_and_back(side: &mut Side, remote: Remote, options: &Options) -> Result<(), Failure> {
    let Remote { address, key, half } = remote;
    for round in 0..options.count {
        side.fill(round);
        let address = address + half;
        side.send(SendOperation::Write { address, key }, options.bytes)?;
        side.wait(Opcode::Write)?;
        side.send(SendOperation::Read { address, key }, options.bytes)?;
        side.wait(Opcode::Read)?;
        side.check(round, options.bytes)?;
    }
    Ok(())
}

/// Lines of text to and from the other host.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn exchange(&mut self, line: &str) -> Result<String, Failure> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        if answer.is_empty() {
            return Err("the other host is gone".into());
        }
        Ok(answer.trim_end().to_owned())
    }

    fn meet(&mut self) -> Result<(), Failure> {
        match self.exchange("here")?.as_str() {
            "here" => Ok(()),
            other => Err(format!("`{other}` from the other host").into()),
        }
    }

    fn introduce(&mut self, side: &mut Side) -> Result<Remote, Failure> {
        let mut endpoint = String::new();
        for byte in side.pair.endpoint().0 {
            write!(endpoint, "{byte:02x}")?;
        }
        let (address, key) = (side.memory.remote_address(), side.memory.remote_key().0);
        let line = self.exchange(&format!("{endpoint} {address} {key} {}", side.half))?;
        let wrong = || format!("`{line}` is no introduction");
        let [endpoint, address, key, half] =
            line.split(' ').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        let bytes: Result<Vec<u8>, _> = (0..endpoint.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(endpoint.get(at..at + 2).unwrap_or("-"), 16))
            .collect();
        side.pair.connect(&Endpoint(bytes?), &ConnectOptions::default())?;
        Ok(Remote { address: address.parse()?, key: RemoteKey(key.parse()?), half: half.parse()? })
    }
}
