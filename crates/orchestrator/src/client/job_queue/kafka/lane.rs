//! What this process has taken out of one topic and not yet acknowledged. Kafka remembers one offset per partition; this remembers each
//! hint: hidden while somebody has it, held back until it is due, and the offset below which everything is acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::{
    client::queue::{Message, QueueError},
    market::quantity::{Micros, Timestamp},
};

/// Partition and offset.
type Spot = (i32, i64);

/// The hints of one topic.
#[derive(Debug, Default)]
pub(super) struct Lane {
    partitions: HashMap<i32, Partition>,
    held: HashMap<Spot, Held>,
    /// To be delivered, in the order of their coming.
    ready: BTreeMap<u64, Spot>,
    /// Not to be delivered before: not yet due, or delivered and hidden.
    hidden: BTreeSet<(Timestamp, Spot)>,
    /// Numbers deliveries and places in `ready`.
    counter: u64,
}

/// A partition that is assigned to this process.
#[derive(Debug, Default)]
struct Partition {
    /// Taken and not acknowledged.
    open: BTreeSet<i64>,
    /// One more than the highest that was taken.
    next: i64,
    /// Everything below may be committed.
    done: i64,
}

/// A hint that was taken.
#[derive(Debug)]
struct Held {
    body: String,
    deliveries: u32,
    /// Names the last delivery; none has the number zero.
    delivery: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Ready(u64),
    Hidden(Timestamp),
}

/// What an acknowledgement allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Of the partition.
    pub partition: i32,
    /// Everything below is acknowledged.
    pub below: i64,
}

impl Lane {
    /// A partition comes to this process; what it had of it before is void.
    pub(super) fn assign(&mut self, partition: i32) {
        self.revoke(partition);
        self.partitions.insert(partition, Partition::default());
    }

    /// A partition goes to another process, which gets everything that was not acknowledged.
    pub(super) fn revoke(&mut self, partition: i32) {
        let Some(gone) = self.partitions.remove(&partition) else { return };
        for offset in gone.open {
            self.take_out((partition, offset));
        }
    }

    /// The partitions that this process has.
    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// How many hints are held, hidden ones included.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// A hint comes from the broker. One that came before in the same assignment is not taken again.
    pub(super) fn arrive(
        &mut self,
        partition: i32,
        offset: i64,
        body: String,
        due: Timestamp,
        now: Timestamp,
    ) {
        let Some(track) = self.partitions.get_mut(&partition) else { return };
        if offset < track.next {
            return;
        }
        track.next = offset.saturating_add(1);
        track.open.insert(offset);
        let spot = (partition, offset);
        let held = Held { body, deliveries: 0, delivery: 0, place: Place::Hidden(due) };
        self.held.insert(spot, held);
        if due > now { self.hide(spot, due) } else { self.make_ready(spot) }
    }

    /// Delivers up to `max` hints and hides them for a time.
    pub(super) fn take(&mut self, max: usize, now: Timestamp, visibility: Micros) -> Vec<Message> {
        self.uncover(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((_, spot)) = self.ready.pop_first() else { break };
            self.counter += 1;
            let delivery = self.counter;
            let Some(held) = self.held.get_mut(&spot) else { continue };
            held.deliveries = held.deliveries.saturating_add(1);
            held.delivery = delivery;
            taken.push(Message {
                id: format!("{}-{}", spot.0, spot.1),
                receipt: format!("{}-{}-{delivery}", spot.0, spot.1),
                body: held.body.clone(),
                deliveries: held.deliveries,
            });
            self.hide(spot, now.plus(visibility));
        }
        taken
    }

    /// Removes a delivered hint; says so when more may be committed than before.
    pub(super) fn acknowledge(&mut self, receipt: &str) -> Result<Option<Done>, QueueError> {
        let (spot, delivery) = parse(receipt)?;
        let track = self.partitions.get_mut(&spot.0).ok_or(QueueError::StaleReceipt)?;
        match self.held.get(&spot) {
            Some(held) if held.delivery == delivery => {}
            Some(_) => return Err(QueueError::StaleReceipt),
            // Gone already.
            None if spot.1 < track.next => return Ok(None),
            None => return Err(QueueError::StaleReceipt),
        }
        track.open.remove(&spot.1);
        let below = track.open.first().copied().unwrap_or(track.next);
        let more = below > track.done;
        track.done = below;
        self.take_out(spot);
        Ok(more.then_some(Done { partition: spot.0, below }))
    }

    /// Hides a delivered hint until a time; a time that has passed gives it back at once.
    pub(super) fn extend(
        &mut self,
        receipt: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let (spot, delivery) = parse(receipt)?;
        match self.held.get(&spot) {
            Some(held) if held.delivery == delivery => {}
            _ => return Err(QueueError::StaleReceipt),
        }
        self.displace(spot);
        if until > now {
            self.hide(spot, until)
        } else {
            self.make_ready(spot)
        }
        Ok(())
    }

    /// When the next hidden hint shows.
    pub(super) fn next_event(&self) -> Option<Timestamp> {
        self.hidden.first().map(|(at, _)| *at)
    }

    fn uncover(&mut self, now: Timestamp) {
        while let Some((at, spot)) = self.hidden.first().copied() {
            if at > now {
                break;
            }
            self.hidden.remove(&(at, spot));
            self.make_ready(spot);
        }
    }

    fn hide(&mut self, spot: Spot, until: Timestamp) {
        self.hidden.insert((until, spot));
        if let Some(held) = self.held.get_mut(&spot) {
            held.place = Place::Hidden(until);
        }
    }

    fn make_ready(&mut self, spot: Spot) {
        self.counter += 1;
        self.ready.insert(self.counter, spot);
        if let Some(held) = self.held.get_mut(&spot) {
            held.place = Place::Ready(self.counter);
        }
    }

    fn displace(&mut self, spot: Spot) {
        match self.held.get(&spot).map(|held| held.place) {
            Some(Place::Ready(place)) => drop(self.ready.remove(&place)),
            Some(Place::Hidden(until)) => drop(self.hidden.remove(&(until, spot))),
            None => {}
        }
    }

    fn take_out(&mut self, spot: Spot) {
        self.displace(spot);
        self.held.remove(&spot);
    }
}

/// Partition, offset and delivery; a receipt that is none is of no delivery of ours.
fn parse(receipt: &str) -> Result<(Spot, u64), QueueError> {
    let mut parts = receipt.splitn(3, '-');
    let mut part = || parts.next().ok_or(QueueError::StaleReceipt);
    let stale = |_| QueueError::StaleReceipt;
    let (partition, offset, delivery) = (part()?, part()?, part()?);
    Ok((
        (partition.parse().map_err(stale)?, offset.parse().map_err(stale)?),
        delivery.parse().map_err(stale)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDE: Micros = Micros::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0).plus(Micros::from_secs(seconds))
    }

    fn lane(hints: i64) -> Lane {
        let mut lane = Lane::default();
        lane.assign(0);
        for offset in 0..hints {
            lane.arrive(0, offset, offset.to_string(), at(0), at(0));
        }
        lane
    }

    fn bodies(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.body.as_str()).collect()
    }

    #[test]
    fn only_what_is_acknowledged_without_a_gap_may_be_committed() {
        let mut lane = lane(4);
        let taken = lane.take(9, at(0), HIDE);
        assert_eq!(bodies(&taken), ["0", "1", "2", "3"]);
        let mut done = |at: usize| lane.acknowledge(&taken[at].receipt).unwrap().map(|done| done.below);
        assert_eq!(done(2), None);
        assert_eq!(done(1), None);
        assert_eq!(done(0), Some(3));
        assert_eq!(done(0), None, "gone already is no error");
        assert_eq!(done(3), Some(4));
        assert_eq!(lane.len(), 0);
    }

    #[test]
    fn what_is_not_acknowledged_comes_again_and_its_old_receipt_is_stale() {
        let mut lane = lane(2);
        let first = lane.take(1, at(0), HIDE);
        assert_eq!(bodies(&lane.take(9, at(1), HIDE)), ["1"]);
        assert_eq!(lane.next_event(), Some(at(30)));
        assert!(lane.take(9, at(29), HIDE).is_empty());
        let again = lane.take(1, at(30), HIDE);
        assert_eq!((bodies(&again), again[0].deliveries), (vec!["0"], 2));
        assert!(matches!(lane.acknowledge(&first[0].receipt), Err(QueueError::StaleReceipt)));
        assert!(matches!(lane.extend(&first[0].receipt, at(99), at(30)), Err(QueueError::StaleReceipt)));
        assert!(lane.acknowledge(&again[0].receipt).unwrap().is_some());
        assert!(matches!(lane.acknowledge("nonsense"), Err(QueueError::StaleReceipt)));
        assert!(matches!(lane.acknowledge("0-77-1"), Err(QueueError::StaleReceipt)));
    }

    #[test]
    fn one_that_has_come_back_may_still_be_acknowledged_by_who_had_it_last() {
        let mut lane = lane(1);
        let taken = lane.take(1, at(0), HIDE);
        lane.uncover(at(31));
        assert!(lane.acknowledge(&taken[0].receipt).unwrap().is_some());
        assert!(lane.take(1, at(99), HIDE).is_empty());
    }

    #[test]
    fn extending_hides_for_longer_and_giving_back_shows_at_once() {
        let mut lane = lane(2);
        let taken = lane.take(2, at(0), HIDE);
        lane.extend(&taken[0].receipt, at(60), at(20)).unwrap();
        lane.extend(&taken[1].receipt, at(20), at(20)).unwrap();
        let back = lane.take(9, at(20), Micros::from_secs(1_000));
        assert_eq!(bodies(&back), ["1"]);
        assert!(lane.take(9, at(59), HIDE).is_empty());
        assert_eq!(bodies(&lane.take(9, at(60), HIDE)), ["0"]);
    }

    #[test]
    fn a_delayed_hint_waits_for_its_time_and_lets_others_pass() {
        let mut lane = Lane::default();
        lane.assign(0);
        lane.arrive(0, 5, "late".to_owned(), at(10), at(0));
        lane.arrive(0, 6, "now".to_owned(), at(0), at(0));
        let taken = lane.take(9, at(9), HIDE);
        assert_eq!(bodies(&taken), ["now"]);
        let done = lane.acknowledge(&taken[0].receipt).unwrap();
        assert_eq!(done, Some(Done { partition: 0, below: 5 }), "a crash must bring the late one back");
        let late = lane.take(9, at(10), HIDE);
        assert_eq!(bodies(&late), ["late"]);
        let done = lane.acknowledge(&late[0].receipt).unwrap();
        assert_eq!(done, Some(Done { partition: 0, below: 7 }));
    }

    #[test]
    fn a_partition_that_goes_takes_everything_with_it() {
        let mut lane = lane(3);
        lane.assign(1);
        lane.arrive(1, 0, "other".to_owned(), at(0), at(0));
        let taken = lane.take(1, at(0), HIDE);
        lane.revoke(0);
        assert!(matches!(lane.acknowledge(&taken[0].receipt), Err(QueueError::StaleReceipt)));
        assert_eq!(bodies(&lane.take(9, at(99), HIDE)), ["other"]);
        assert_eq!(lane.len(), 1);
        lane.arrive(0, 3, "lost".to_owned(), at(0), at(0));
        assert_eq!(lane.len(), 1, "nothing is taken from partitions of others");
        lane.assign(0);
        lane.arrive(0, 0, "0".to_owned(), at(0), at(0));
        lane.arrive(0, 0, "0".to_owned(), at(0), at(0));
        assert!(matches!(lane.acknowledge(&taken[0].receipt), Err(QueueError::StaleReceipt)));
        assert_eq!(bodies(&lane.take(9, at(99), HIDE)), ["0"]);
    }
}
