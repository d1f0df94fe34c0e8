//! [`Channel`]: the state that an engine holds per queue pair.

use std::collections::VecDeque;

use netchannel_units::{Bandwidth, Duration, Timestamp};
use netchannel_wire::frame::MessageHeader;

use crate::ack::{AckNeed, Acks};
use crate::config::ChannelConfig;
use crate::congestion::{AckBatch, CongestionControl, Controller, LossBatch};
use crate::delivery::Delivery;
use crate::error::ChannelError;
use crate::flow::{CONTROL_RESERVE, Flow};
use crate::pacer::Pacer;
use crate::state::State;
use crate::stats::ChannelStats;

/// What a sender who was idle may catch up with when it is paced: about a NIC's own burst.
const PACER_BURST: Duration = Duration::from_micros(2);
/// Rings start with room for at most this many messages and grow once if the peer has more slots.
const INITIAL_RING: usize = 1_024;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stream bytes.
    Data,
    /// Acknowledgements, credit, fencing: may use the slots that [`CONTROL_RESERVE`] keeps back.
    Control,
}

/// One message posted to the NIC and not completed.
#[derive(Clone, Copy, Debug)]
struct Posted {
    at: Timestamp,
    /// Bytes posted on the Channel up to and with this message.
    end: u64,
}

/// One message not yet polled as confirmed.
#[derive(Clone, Debug)]
struct Carried<T> {
    bytes: u64,
    item: T,
}

/// The state of one queue pair of a reliable service, without the queue pair.
///
/// `T` is what a message carried in the engine's terms; it comes back once, from
/// [`Channel::poll_confirmed`] or from [`Channel::fail`].
///
/// A poll pass of the engine calls, in this order: [`Channel::on_completion`] per signalled send
/// completion; per receive completion [`Channel::on_message`], then (frames processed, slot
/// reposted) [`Channel::on_processed`], then [`Channel::poll_confirmed`] until it is `None`;
/// [`Channel::on_timeout`] if the time has come; [`Channel::on_transmit`] per message it posts;
/// and at the end, if [`Channel::wants_ack`] is [`AckNeed::Now`] and
/// [`Channel::may_send`]`(Kind::Control)`, one message without frames.
///
/// *Confirmed* is not *completed*: the peer's engine can answer before this side's NIC reports
/// the send. A confirmed message was read for the last time that matters (the peer's NIC drops a
/// retransmission of it), so its bytes may be overwritten; but memory is unregistered only when
/// [`Channel::completed`] has passed it, too.
///
/// ```
/// use netchannel_channel::{AckNeed, Channel, ChannelConfig, Controller, Kind};
/// use netchannel_units::Timestamp;
///
/// let now = Timestamp::from_nanos(1);
/// let mut a = Channel::new(ChannelConfig::default(), Controller::default());
/// let mut b = Channel::<()>::new(ChannelConfig::default(), Controller::default());
///
/// let first = a.on_transmit(now, 100, "one", Kind::Data);
/// let second = a.on_transmit(now, 100, "two", Kind::Data);
/// a.on_completion(now, second.sequence);
/// assert_eq!((a.outstanding(), a.unconfirmed()), (0, 2));
///
/// for header in [first, second] {
///     b.on_message(now, &header)?;
///     b.on_processed(true);
/// }
/// assert_eq!(b.wants_ack(), AckNeed::Now);
/// let ack = b.on_transmit(now, 0, (), Kind::Control);
///
/// a.on_message(now, &ack)?;
/// a.on_processed(false);
/// assert_eq!(a.poll_confirmed(), Some("one"));
/// assert_eq!(a.poll_confirmed(), Some("two"));
/// assert_eq!(a.wants_ack(), AckNeed::None);
/// # Ok::<(), netchannel_channel::ChannelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Channel<T> {
    state: State,
    flow: Flow,
    acks: Acks,
    control: Controller,
    pacer: Pacer,
    delivery: Delivery,
    stats: ChannelStats,
    send_queue: u64,
    /// Messages `completed..sent`.
    posted: VecDeque<Posted>,
    /// Messages `polled..sent`.
    carried: VecDeque<Carried<T>>,
    /// Messages handed out by `poll_confirmed`.
    polled: u64,
    /// One more than the last message sent that asks for an acknowledgement.
    eliciting_end: u64,
    /// Time of the last message that arrived; `on_processed` follows in the same poll pass.
    arrived: Timestamp,
}

/// Getters.
impl<T> Channel<T> {
    /// A Channel before its first message.
    ///
    /// # Panics
    /// If [`ChannelConfig::check`] fails; check numbers that come from a peer first.
    pub fn new(config: ChannelConfig, control: Controller) -> Self {
        if let Err(error) = config.check() {
            panic!("Channel::new: {error}");
        }
        let posted = (config.send_queue as usize).min(INITIAL_RING);
        let carried = (config.peer_slots as usize).min(INITIAL_RING);
        Self {
            state: State::Open,
            flow: Flow::new(&config),
            acks: Acks::new(config.acks, config.receive_slots),
            control,
            pacer: Pacer::new(PACER_BURST),
            delivery: Delivery::default(),
            stats: ChannelStats::default(),
            send_queue: u64::from(config.send_queue),
            posted: VecDeque::with_capacity(posted),
            carried: VecDeque::with_capacity(carried),
            polled: 0,
            eliciting_end: 0,
            arrived: Timestamp::ZERO,
        }
    }

    /// Open, receiving only, or failed.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a message of this kind may leave: the Channel is open, the peer has a receive
    /// posted for it, and the send queue has room. Data leaves [`CONTROL_RESERVE`] of each to
    /// control, and the peer's last slot goes to a message that returns a slot.
    pub fn may_send(&self, kind: Kind) -> bool {
        let slots = self.flow.free();
        let room = self.send_queue.saturating_sub(self.posted.len() as u64);
        self.state == State::Open
            && match kind {
                Kind::Data => slots > CONTROL_RESERVE && room > CONTROL_RESERVE,
                Kind::Control => {
                    room > 0 && (slots > 1 || (slots == 1 && self.acks.returns_slots()))
                }
            }
    }

    /// Bytes that congestion control still lets out; `u64::MAX` without a bound.
    pub fn window_left(&self) -> u64 {
        match self.control.window() {
            u64::MAX => u64::MAX,
            window => window.saturating_sub(self.outstanding()),
        }
    }

    /// Bytes posted and not completed by the NIC.
    pub fn outstanding(&self) -> u64 {
        self.stats.bytes_posted - self.stats.bytes_completed
    }

    /// Messages posted and not acknowledged by the peer's engine. Messages without frames count
    /// too, and stay until something else is acknowledged: see [`Channel::expects_ack`].
    pub fn unconfirmed(&self) -> usize {
        (self.flow.sent - self.flow.acknowledged) as usize
    }

    /// Whether the peer owes an acknowledgement: a message with frames is unconfirmed.
    pub fn expects_ack(&self) -> bool {
        self.state == State::Open && self.eliciting_end > self.flow.acknowledged
    }

    /// Messages completed by the NIC: all with a lower sequence number.
    pub fn completed(&self) -> u64 {
        self.stats.messages_completed
    }

    /// Delivery rate measured while the queue was busy; zero is unknown. See
    /// [`delivery`](crate::delivery).
    pub fn rate(&self) -> Bandwidth {
        self.delivery.rate()
    }

    /// Smoothed completion time without this side's own queueing; `None` before the first sample.
    pub fn completion_time(&self) -> Option<Duration> {
        self.delivery.completion_time()
    }

    /// When the pacer lets the next message leave: `now`, unless the algorithm paces.
    pub fn departure(&self, now: Timestamp) -> Timestamp {
        self.pacer.departure(now)
    }

    /// What messages carried that are not yet polled as confirmed.
    pub fn unpolled(&self) -> impl Iterator<Item = &T> {
        self.carried.iter().map(|carried| &carried.item)
    }

    /// Counters since the beginning.
    pub fn stats(&self) -> &ChannelStats {
        &self.stats
    }
}

/// Outputs.
impl<T> Channel<T> {
    /// A message leaves: its header, with `frames` zero for the caller to fill in.
    ///
    /// `bytes` is what the post list carries beside the header: frames, and WRITEs that precede
    /// the message. A [`Kind::Control`] message of zero bytes is a bare acknowledgement.
    ///
    /// The caller has asked [`Channel::may_send`] for this kind.
    pub fn on_transmit(
        &mut self,
        now: Timestamp,
        bytes: u64,
        carried: T,
        kind: Kind,
    ) -> MessageHeader {
        debug_assert!(self.may_send(kind), "no slot, no room or failed");
        let header = self.flow.next_header();
        self.stats.messages_posted += 1;
        self.stats.bytes_posted += bytes;
        if bytes == 0 && kind == Kind::Control {
            self.stats.acks_sent += 1;
        } else {
            self.eliciting_end = self.flow.sent;
        }
        self.posted.push_back(Posted { at: now, end: self.stats.bytes_posted });
        self.carried.push_back(Carried { bytes, item: carried });
        self.acks.on_header();
        self.control.on_transmit(now, bytes, self.outstanding());
        self.pacer.on_transmit(now, bytes, self.control.pacing_rate());
        header
    }

    /// Whether the peer waits for a message; see [`ack`](crate::ack).
    pub fn wants_ack(&self) -> AckNeed {
        match self.state {
            State::Open => self.acks.need(),
            State::Receiving | State::Failed => AckNeed::None,
        }
    }

    /// When [`Channel::on_timeout`] is wanted, if at all.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        match self.state {
            State::Open => {
                let both = [self.acks.next_timeout(), self.control.next_timeout()];
                both.into_iter().flatten().min()
            }
            State::Receiving | State::Failed => None,
        }
    }

    /// The next message, in order of sending, that the peer's engine has processed.
    pub fn poll_confirmed(&mut self) -> Option<T> {
        if self.polled == self.flow.acknowledged {
            return None;
        }
        let carried = self.carried.pop_front()?;
        self.polled += 1;
        self.stats.bytes_confirmed += carried.bytes;
        Some(carried.item)
    }
}

/// Inputs.
impl<T> Channel<T> {
    /// Whether a message that arrived is the one that is next, before its frames are looked at: what
    /// comes twice from a device that broke its promise must not be processed twice.
    ///
    /// # Errors
    /// [`ChannelError::Sequence`] or [`ChannelError::Failed`].
    pub fn expects(&self, header: &MessageHeader) -> Result<(), ChannelError> {
        match self.state {
            State::Failed => Err(ChannelError::Failed),
            State::Open | State::Receiving => self.flow.check_sequence(header),
        }
    }

    /// A message arrived, and its frames were processed.
    ///
    /// # Errors
    /// The peer broke a rule, or the Channel has failed. Nothing of the header was taken over; the
    /// caller fences the Channel and calls [`Channel::fail`].
    pub fn on_message(
        &mut self,
        now: Timestamp,
        header: &MessageHeader,
    ) -> Result<(), ChannelError> {
        if self.state == State::Failed {
            return Err(ChannelError::Failed);
        }
        self.flow.on_header(header)?;
        self.arrived = now;
        self.stats.messages_received = self.flow.received;
        self.stats.messages_confirmed = self.flow.acknowledged;
        Ok(())
    }

    /// The slot of the oldest message not yet processed was reposted. `elicits_ack`: it had a
    /// frame.
    pub fn on_processed(&mut self, elicits_ack: bool) {
        debug_assert!(self.flow.processed < self.flow.received, "no message to process");
        self.flow.processed += 1;
        self.acks.on_processed(self.arrived, elicits_ack);
    }

    /// The NIC completed message `sequence` (low 32 bits) and with it every earlier one. Stale
    /// numbers are ignored. After [`Channel::fail`] flushed messages are reported here, too, until
    /// nothing is outstanding; their times count for nothing.
    pub fn on_completion(&mut self, now: Timestamp, sequence: u32) {
        let completed = self.stats.messages_completed;
        let index = sequence.wrapping_sub(completed as u32) as usize;
        let (Some(&first), Some(&last)) = (self.posted.front(), self.posted.get(index)) else {
            return;
        };
        self.posted.drain(..=index);
        let bytes = last.end - self.stats.bytes_completed;
        self.stats.messages_completed = completed + index as u64 + 1;
        self.stats.bytes_completed = last.end;
        if self.state == State::Failed {
            return;
        }
        let completion_time = self.delivery.on_completion(now, first.at, bytes);
        let outstanding = self.outstanding();
        self.control.on_acks(&AckBatch { now, bytes, outstanding, completion_time });
    }

    /// The engine has not polled for so long that the times of the next completions say nothing
    /// about the network (several times its usual poll pass).
    pub fn on_poll_gap(&mut self) {
        self.delivery.on_poll_gap();
    }

    /// The time of [`Channel::next_timeout`] has come; too early is harmless.
    pub fn on_timeout(&mut self, now: Timestamp) {
        if self.state != State::Open {
            return;
        }
        self.acks.on_timeout(now);
        if self.control.next_timeout().is_some_and(|at| at <= now) {
            self.control.on_timeout(now);
        }
    }

    /// Messages are still taken, none leaves: see [`State`].
    pub fn receive_only(&mut self) {
        if self.state == State::Open {
            self.state = State::Receiving;
        }
    }

    /// Messages may leave (again).
    pub fn open(&mut self) {
        if self.state == State::Receiving {
            self.state = State::Open;
        }
    }

    /// Messages of the peer that this side has processed, for the peer's
    /// [`on_report`](Self::on_report). Nothing may arrive any more.
    pub fn processed(&self) -> u64 {
        self.flow.processed
    }

    /// The peer has processed `received` messages, and will not process another. It may have said
    /// more in its last acknowledgement.
    ///
    /// # Errors
    /// [`ChannelError::Acknowledged`] if so many were never sent: nothing was taken over.
    pub fn on_report(&mut self, received: u64) -> Result<(), ChannelError> {
        self.flow.on_report(received)?;
        self.stats.messages_confirmed = self.flow.acknowledged;
        Ok(())
    }

    /// The queue pair is dead. Everything that is not acknowledged comes back, oldest first; what
    /// is acknowledged may still be polled. The memory is free when the queue pair is flushed:
    /// [`Channel::outstanding`] is zero.
    pub fn fail(&mut self) -> impl Iterator<Item = T> {
        if self.state != State::Failed {
            self.state = State::Failed;
            let bytes = self.outstanding();
            self.control.on_loss(&LossBatch { now: self.arrived, bytes });
        }
        let confirmed = (self.flow.acknowledged - self.polled) as usize;
        self.carried.drain(confirmed.min(self.carried.len())..).map(|carried| carried.item)
    }
}
