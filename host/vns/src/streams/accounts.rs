//! Receive memory of each application. No application's bytes ever lie in another's slab, and none
//! waits because another has used up its own.

use std::collections::VecDeque;

use netchannel_units::Timestamp;
use netchannel_wire::StreamId;

use crate::pool::{SlabId, WindowPool};

/// Number of an application in its engine. The engine's own process is number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApplicationId(pub u32);

impl ApplicationId {
    /// The process that the engine runs in.
    pub const LOCAL: Self = Self(0);
}

/// Place of an account in [`Accounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountIndex(u32);

/// What one application has.
#[derive(Debug, Default)]
pub(super) struct Account {
    application: ApplicationId,
    pub(super) pool: WindowPool,
    /// Streams in the table.
    streams: usize,
    /// More slabs would help.
    pub(super) slab_wanted: bool,
    /// One was asked for and has not come: making one takes longer than many messages.
    slab_asked: bool,
    /// Starved streams asked for a slab since the last one came.
    pub(super) starved_asked: bool,
    /// Streams whose bytes were refused, the first first.
    pub(super) starved: VecDeque<StreamId>,
}

/// The accounts of all applications; the first is the engine's own process's.
#[derive(Debug)]
pub(super) struct Accounts(Vec<Account>);

impl Default for Accounts {
    fn default() -> Self {
        Self(vec![Account::default()])
    }
}

impl Accounts {
    /// The account of an application, made on first use.
    pub(super) fn open(&mut self, application: ApplicationId) -> AccountIndex {
        let known = self.0.iter().position(|account| account.application == application);
        // A closed account has the number of the first, which is found first.
        let free = || (1..self.0.len()).find(|index| self.0[*index].application.0 == 0);
        let index = known.or_else(free).unwrap_or_else(|| {
            self.0.push(Account::default());
            self.0.len() - 1
        });
        if known.is_none() {
            // A newcomer has nothing at all.
            self.0[index] = Account { application, slab_wanted: true, ..Account::default() };
        }
        AccountIndex(index as u32)
    }

    pub(super) fn find(&self, application: ApplicationId) -> Option<&Account> {
        self.0.iter().find(|account| account.application == application)
    }

    pub(super) fn application(&self, index: AccountIndex) -> ApplicationId {
        self.0[index.0 as usize].application
    }

    /// Whether a stream of any application waits for room.
    pub(super) fn any_starved(&self) -> bool {
        self.0.iter().any(|account| !account.starved.is_empty())
    }

    pub(super) fn get(&mut self, index: AccountIndex) -> &mut Account {
        &mut self.0[index.0 as usize]
    }

    pub(super) fn pool(&mut self, index: AccountIndex) -> &mut WindowPool {
        &mut self.get(index).pool
    }

    pub(super) fn add_slab(&mut self, application: ApplicationId, slab: SlabId) {
        let index = self.open(application);
        let account = self.get(index);
        account.pool.add_slab(slab);
        account.slab_wanted = false;
        account.slab_asked = false;
        account.starved_asked = false;
    }

    /// An application for which more slabs would help, one slab at a time.
    pub(super) fn take_slab_demand(&mut self) -> Option<ApplicationId> {
        let unasked = |account: &&mut Account| account.slab_wanted && !account.slab_asked;
        let account = self.0.iter_mut().find(unasked)?;
        account.slab_wanted = false;
        account.slab_asked = true;
        Some(account.application)
    }

    /// The slab that was asked for does not come. Who needs one may ask again.
    pub(super) fn on_slab_denied(&mut self, application: ApplicationId) {
        let denied = self.0.iter_mut().find(|account| account.application == application);
        denied.into_iter().for_each(|account| account.slab_asked = false);
    }

    /// A slab that its application has not needed for long.
    pub(super) fn take_spare_slab(&mut self, now: Timestamp) -> Option<SlabId> {
        self.0.iter_mut().find_map(|account| account.pool.take_spare(now))
    }

    /// When to ask for spare slabs.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|account| account.pool.next_timeout()).min()
    }

    pub(super) fn on_stream_added(&mut self, index: AccountIndex) {
        self.get(index).streams += 1;
    }

    pub(super) fn on_stream_removed(&mut self, index: AccountIndex) {
        self.get(index).streams -= 1;
    }

    /// Forgets an application without streams. Every window of it is back then.
    pub(super) fn close(&mut self, application: ApplicationId) -> bool {
        let found = self.0.iter_mut().skip(1).find(|account| account.application == application);
        let Some(account) = found else { return application != ApplicationId::LOCAL };
        if account.streams > 0 {
            return false;
        }
        debug_assert_eq!(account.pool.free_bytes(), u64::from(account.pool.slabs()) << 21);
        *account = Account::default();
        true
    }

    /// How many accounts there are, closed ones included.
    pub(super) fn indices(&self) -> impl Iterator<Item = AccountIndex> + use<> {
        (0..self.0.len() as u32).map(AccountIndex)
    }
}
