//! Everybody who has been spawned and not been reaped, by age. All of them are looked at after every event, so they lie
//! side by side; they are found by bisection, since numbers are given in order.

use crate::core::types::WorkerId;
use crate::core::worker::Worker;

#[derive(Debug, Default)]
pub(super) struct Roster(Vec<(WorkerId, Worker)>);

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.0.get(self.find(id)?).map(|(_, worker)| worker)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let at = self.find(id)?;
        self.0.get_mut(at).map(|(_, worker)| worker)
    }

    /// One who is younger than all others.
    pub(super) fn add(&mut self, id: WorkerId, worker: Worker) {
        self.0.push((id, worker));
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.find(id).map(|at| self.0.remove(at).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.0.iter().map(|(id, worker)| (*id, worker))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (WorkerId, &mut Worker)> {
        self.0.iter_mut().map(|(id, worker)| (*id, worker))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter().map(|(_, worker)| worker)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.0.iter_mut().map(|(_, worker)| worker)
    }

    fn find(&self, id: WorkerId) -> Option<usize> {
        self.0.binary_search_by_key(&id, |(known, _)| *known).ok()
    }
}
