//! Kernel TCP, the baseline, given its best chance: congestion control set explicitly, large
//! buffers on both sides, no delay for small messages, busy polling on request.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Context, Error, Result};
use crate::limit::Backoff;
use crate::spec::TcpSettings;
use crate::transport::{ACCEPT_TIMEOUT, Connection, Counters, Transport, drain};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One side of a run over kernel TCP.
pub struct Tcp {
    settings: TcpSettings,
    interface: Option<String>,
    listener: Option<TcpListener>,
}

impl Tcp {
    /// A side with these settings; `interface` binds its sockets to a network interface.
    pub fn new(settings: TcpSettings, interface: Option<String>) -> Self {
        Self { settings, interface, listener: None }
    }

    /// A socket with every option that must be set before it connects or listens.
    fn socket(&self, address: SocketAddr) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
            .context("make a TCP socket")?;
        let TcpSettings { congestion, buffer, .. } = &self.settings;
        socket.set_tcp_congestion(congestion.as_bytes()).context(format!(
            "set TCP congestion control `{congestion}` (modprobe tcp_{congestion}?)"
        ))?;
        socket.set_send_buffer_size(*buffer).context("set the TCP send buffer")?;
        socket.set_recv_buffer_size(*buffer).context("set the TCP receive buffer")?;
        socket.set_tcp_nodelay(true).context("set TCP_NODELAY")?;
        if let Some(interface) = &self.interface {
            socket
                .bind_device(Some(interface.as_bytes()))
                .context(format!("bind TCP to interface `{interface}`"))?;
        }
        Ok(socket)
    }

    fn connection(&self, stream: TcpStream) -> Result<Box<dyn Connection>> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        if self.settings.spin {
            stream.set_nonblocking(true).context("make a TCP socket non-blocking")?;
            return Ok(Box::new(Spinning { stream, backoff: Backoff::endless() }));
        }
        Ok(Box::new(stream))
    }
}

impl Transport for Tcp {
    fn listen(&mut self, ip: IpAddr) -> Result<SocketAddr> {
        let address = SocketAddr::new(ip, 0);
        let socket = self.socket(address)?;
        let failed = |source| Error::Listen { address, source };
        socket.bind(&address.into()).map_err(failed)?;
        socket.listen(128).map_err(failed)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().map_err(failed)?;
        self.listener = Some(listener);
        Ok(address)
    }

    fn accept(&mut self) -> Result<Box<dyn Connection>> {
        let listener =
            self.listener.as_ref().ok_or_else(|| Error::Invalid("accept before listen".into()))?;
        wait_readable(listener)?;
        let (stream, _) = listener.accept().context("accept a TCP connection")?;
        self.connection(stream)
    }

    fn connect(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>> {
        let socket = self.socket(address)?;
        socket
            .connect_timeout(&address.into(), CONNECT_TIMEOUT)
            .map_err(|source| Error::Unreachable { address, source })?;
        self.connection(socket.into())
    }

    fn counters(&self) -> Counters {
        Counters { device: self.interface.clone().unwrap_or_default(), ..Counters::default() }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn wait_readable(listener: &TcpListener) -> Result<()> {
    let timeout = Timespec { tv_sec: ACCEPT_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout))
        .context("wait for a TCP connection")?;
    if ready == 0 {
        return Err(Error::TimedOut {
            what: "waiting for a connection".into(),
            limit: ACCEPT_TIMEOUT,
        });
    }
    Ok(())
}

impl Connection for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    /// Waits until the peer has read everything and ended its side as well.
    fn close(mut self: Box<Self>) -> io::Result<()> {
        // Fails where the stream was finished before, which is just as good.
        let _ = self.shutdown(Shutdown::Write);
        drain(&mut *self)
    }
}

/// A connection whose calls busy-poll. The kernel tells when the peer is gone.
struct Spinning {
    stream: TcpStream,
    backoff: Backoff,
}

impl Spinning {
    fn retry<T>(&mut self, mut call: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match call(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.backoff.wait()?,
                other => return other,
            }
        }
    }
}

impl Read for Spinning {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|stream| stream.read(buffer))
    }
}

impl Write for Spinning {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry(|stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Connection for Spinning {
    fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn close(mut self: Box<Self>) -> io::Result<()> {
        // Fails where the stream was finished before, which is just as good.
        let _ = self.stream.shutdown(Shutdown::Write);
        drain(&mut *self)
    }
}
