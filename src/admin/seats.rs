//! Who may stay connected. A full house makes nobody wait: whoever has been idle longest goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::Stats;

/// How long a new connection waits when every other one has a request in flight.
const PATIENCE: Duration = Duration::from_millis(100);

/// The connections of one listener.
pub(super) struct Seats {
    limit: usize,
    table: Mutex<Table>,
    /// A seat was left, or its request answered.
    freed: Notify,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Table {
    taken: usize,
    /// Orders the idle by when they became so, without a clock.
    turn: u64,
    idle: BTreeMap<u64, Arc<Notify>>,
}

/// One connection's; left when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// The key in [`Table::idle`] while there is no request in flight.
    turn: AtomicU64,
    evict: Arc<Notify>,
}

/// A request in flight: its connection is not evicted.
pub(super) struct Busy(Arc<Seat>);

impl Seats {
    pub(super) fn new(limit: usize, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), table: Mutex::default(), freed: Notify::new(), stats })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A seat, at somebody else's expense if need be; `None` where all the others are being answered.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Arc<Seat>> {
        while self.table().taken >= self.limit && !self.evict() {
            timeout(PATIENCE, self.freed.notified()).await.ok()?;
        }
        let seat = Arc::new(Seat { seats: Arc::clone(self), turn: AtomicU64::new(0), evict: Arc::default() });
        let mut table = self.table();
        table.taken += 1;
        seat.sit(&mut table);
        Stats::count(&self.stats.admin_connections);
        Some(seat)
    }

    /// Tells the connection that has been idle longest to go. `false` where there is none.
    pub(super) fn evict(&self) -> bool {
        let oldest = self.table().idle.pop_first();
        let Some((_, evict)) = oldest else { return false };
        evict.notify_one();
        Stats::count(&self.stats.admin_evictions);
        true
    }

    /// A panic elsewhere has left the table as it was before or after its change.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Returns when the connection has to go.
    pub(super) async fn evicted(&self) {
        self.evict.notified().await;
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.seats.stats
    }

    /// Keeps the seat as long as a request is being answered.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.seats.table().idle.remove(&self.turn.load(Ordering::Relaxed));
        Stats::count(&self.seats.stats.admin_requests);
        Busy(Arc::clone(self))
    }

    /// Whoever has just been answered is the last to go: the answer may still be on its way.
    fn sit(&self, table: &mut Table) {
        table.turn += 1;
        self.turn.store(table.turn, Ordering::Relaxed);
        table.idle.insert(table.turn, Arc::clone(&self.evict));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let seats = &self.0.seats;
        self.0.sit(&mut seats.table());
        seats.stats.admin_requests.fetch_sub(1, Ordering::Relaxed);
        seats.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        table.taken -= 1;
        table.idle.remove(&self.turn.load(Ordering::Relaxed));
        self.seats.stats.admin_connections.fetch_sub(1, Ordering::Relaxed);
        self.seats.freed.notify_one();
    }
}
