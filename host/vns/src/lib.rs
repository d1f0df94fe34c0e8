//! VNS, the virtual network system: the streams of one session, as pure state.
//!
//! Nothing here reads a clock, touches memory or knows a queue pair. The engine feeds frames and
//! application commands in, and asks what to send and what changed:
//!
//! 1. inputs: [`Streams::open`], [`Streams::write`], [`Streams::consume`], [`Streams::on_frame`],
//!    [`Streams::on_message_confirmed`], ...
//! 2. outputs, until each is empty: [`Streams::poll_control`] (frames other than bytes),
//!    [`Streams::poll_backlog`] (streams whose sendable bytes changed), [`Streams::poll_touched`]
//!    (streams whose state the application should see), [`Streams::poll_incoming`],
//!    [`Streams::poll_closed`].
//! 3. bytes: [`Streams::sending`], then [`Sending::next_chunk`](streams::Sending::next_chunk) and
//!    [`Sending::on_sent`](streams::Sending::on_sent) by turns.
//!
//! - [`streams`]: the table of streams and all inputs and outputs.
//! - [`send`], [`receive`]: the two halves of a stream, one state machine each.
//! - [`pool`]: receive windows, leased from slabs of remote-writable memory.
//! - [`ids`]: which stream numbers were used.
//! - [`error`]: what a peer can do wrong, and what an application can.
//! - [`fuzzing`]: what must hold whatever a peer sends.
//!
//! # What the engine owes the streams
//!
//! - What a message carried goes to [`Streams::on_message_confirmed`] when the peer has acknowledged the
//!   message, after the frames of the message that says so.
//! - No message leaves a Channel that [`Streams::has_refusals`] with a higher acknowledgement than
//!   the one before: the peer would let go of bytes that were refused.
//! - When a Channel is fenced and the peer has handled all it received of it, what its
//!   unacknowledged messages carried goes to [`Streams::on_lost`], then
//!   [`Streams::on_channel_lost`] is called. Frames that the peer had handled after all may come
//!   twice; bytes, too.
//!
//! # Example
//!
//! A stream between two hosts whose Channel delivers at once:
//!
//! ```
//! use netchannel_units::{ChannelId, Class, StreamOffset, Timestamp};
//! use netchannel_vns::streams::{Control, Role};
//! use netchannel_vns::{ApplicationId, Placement, SlabId, Streams, StreamsConfig};
//! use netchannel_wire::Frame;
//!
//! let config = |role| StreamsConfig {
//!     role,
//!     eager_credit: 65_536,
//!     peer_eager_credit: 65_536,
//!     window_log2: 21,
//!     eager_chunk: 4_096,
//!     bulk_min: 4_096,
//!     credits_per_window: 4,
//! };
//! let (now, via) = (Timestamp::ZERO, ChannelId(0));
//! let mut client = Streams::new(config(Role::Client));
//! let mut server = Streams::new(config(Role::Server));
//! server.add_slab(ApplicationId::LOCAL, SlabId(0));
//!
//! let id = client.open(80, Class::Latency)?;
//! client.write(id, StreamOffset::new(5))?;
//!
//! // OPEN goes ahead of everything else.
//! let open = client.poll_control().unwrap();
//! let Control::Frame(frame) = open.frame else { unreachable!() };
//! client.on_control_sent(&open.carried, via);
//! server.on_frame(now, via, &frame)?;
//! assert_eq!(server.poll_incoming().unwrap().stream, id);
//!
//! // The bytes follow on the same Channel.
//! assert_eq!(client.poll_backlog().unwrap().bytes, 5);
//! let mut sending = client.sending(id).unwrap();
//! let chunk = sending.next_chunk(1 << 16).unwrap();
//! let bytes = b"hello";
//! let data = Frame::Data { stream: id, offset: chunk.range.start, backlog: 0, bytes };
//! let carried = sending.on_sent(&chunk);
//! assert_eq!(sending.sendable(), 0);
//! assert_eq!(server.on_frame(now, via, &data)?, Placement::Copy { out_of_order: false });
//! assert_eq!(server.pieces()[0].len, 5); // the engine copies them into the window
//! assert_eq!(server.receive_half(id).unwrap().received(), StreamOffset::new(5));
//!
//! // The acknowledgement of the messages frees the sender's copy.
//! client.on_confirmed(&open.carried);
//! client.on_confirmed(&carried);
//! assert_eq!(client.send_half(id).unwrap().confirmed(), StreamOffset::new(5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod error;
pub mod fuzzing;
pub mod ids;
pub mod pool;
pub mod receive;
pub mod send;
mod stream;
pub mod streams;

pub use error::{ProtocolError, StreamError};
pub use pool::{Lease, SlabId, WindowPool};
pub use send::{Chunk, Form, Grant};
pub use streams::{ApplicationId, Carried, Placement, Role, Streams, StreamsConfig};
