//! The side that does what a client asks for: it reads bulk bytes and answers messages.

use std::net::IpAddr;

use crate::bandwidth::{self, Moved};
use crate::control::{Conversation, Reply, Request, SideReport, VERSION};
use crate::error::{Error, Result};
use crate::latency;
use crate::report::Report;
use crate::spec::{DEFAULT_BUFFER, Load, RunSpec, Tool};
use crate::transport::{Connection, Transport, processor_time};

/// Opens this side's end of the stack for a run; the second argument is the address at which the
/// client reached this host.
pub type Open<'a> = dyn Fn(&RunSpec, IpAddr) -> Result<Box<dyn Transport>> + 'a;

/// Serves one client to the end of its conversation. A run that fails is told to the client and
/// returned; so is
/// what the client told about all runs.
pub fn serve(conversation: &mut Conversation, open: &Open<'_>) -> Result<Option<Report>> {
    let result = converse(conversation, open);
    if let Err(error) = &result {
        // The client may be gone; the error itself tells more than that.
        let _ = conversation.say(&Reply::Failed(error.to_string()));
    }
    result
}

fn converse(conversation: &mut Conversation, open: &Open<'_>) -> Result<Option<Report>> {
    match conversation.hear()? {
        Some(Request::Hello(VERSION)) => conversation.say(&Reply::Welcome(VERSION))?,
        Some(Request::Hello(other)) => {
            return Err(Error::Protocol(format!(
                "the server speaks version {VERSION}, the client version {other}"
            )));
        }
        Some(other) => return Err(Error::Protocol(format!("{other:?} before hello"))),
        None => return Ok(None),
    }
    let mut report = None;
    loop {
        match conversation.hear()? {
            Some(Request::Run(spec)) => {
                let side = run(conversation, &spec, open)?;
                conversation.say(&Reply::Done(side))?;
            }
            Some(Request::Report(told)) => report = Some(*told),
            Some(other @ (Request::Hello(_) | Request::Over)) => {
                return Err(Error::Protocol(format!("{other:?} in the middle")));
            }
            None => return Ok(report),
        }
    }
}

fn run(conversation: &mut Conversation, spec: &RunSpec, open: &Open<'_>) -> Result<SideReport> {
    spec.load.check()?;
    let ip = conversation.local_address()?.ip();
    let mut transport = open(spec, ip)?;
    let address = transport.listen(ip)?;
    conversation.say(&Reply::Ready(address))?;
    let connections =
        (0..spec.load.streams).map(|_| transport.accept()).collect::<Result<Vec<_>>>()?;
    if let Some(every) = spec.load.fail_channel_every {
        transport.start_faults(every * 2, every * 2);
    }
    let before = processor_time();
    let moved = match (spec.load.tool, spec.load.bulk) {
        (Tool::Bandwidth, _) => bandwidth::receive(connections, &spec.load)?,
        (Tool::Latency, None) => {
            let bytes = latency::echo(connections, &spec.load)?;
            Moved { bytes, ..Moved::default() }
        }
        (Tool::Latency, Some(bulk)) => {
            let readers =
                (0..bulk.streams).map(|_| transport.accept()).collect::<Result<Vec<_>>>()?;
            echo_beside(connections, &spec.load, readers)?
        }
    };
    let processor = processor_time() - before;
    transport.stop_faults()?;
    match conversation.hear()? {
        Some(Request::Over) => {}
        Some(other) => return Err(Error::Protocol(format!("{other:?} in the middle of a run"))),
        None => return Err(Error::PeerGone(std::io::ErrorKind::UnexpectedEof.into())),
    }
    let counters = transport.counters();
    transport.close()?;
    Ok(SideReport { moved, counters, processor })
}

/// Answers messages while other connections are read; what those carried.
fn echo_beside(
    connections: Vec<Box<dyn Connection>>,
    load: &Load,
    readers: Vec<Box<dyn Connection>>,
) -> Result<Moved> {
    let bulk = Load { size: DEFAULT_BUFFER, verify: false, ..load.clone() };
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| bandwidth::receive(readers, &bulk));
        let answered = latency::echo(connections, load);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answered.and(read)
    })
}
