//! Names that clients have asked for in vain, until somebody looks whether they may have a certificate. Filled within
//! handshakes, so nothing in here waits.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::budget::registrable;

/// Names that nobody has looked at yet: of all domains, and of one, so that no domain takes all places.
const WAITING_MAX: usize = 256;
const OF_DOMAIN_MAX: usize = 16;
/// How many names are remembered that are not to be looked at for a while.
const PUT_OFF_MAX: usize = 4096;

/// The names, each once, the first that was asked for first.
#[derive(Debug, Default)]
pub(super) struct Demand {
    names: Mutex<Names>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Names {
    waiting: VecDeque<String>,
    /// The same.
    known: HashSet<String>,
    /// How many of those are of a registrable domain.
    of_domain: HashMap<String, usize>,
    /// Until when others are not looked at: they are refused, or tried again by themselves.
    put_off: HashMap<String, Instant>,
}

impl Demand {
    /// A client has asked for a name. What there is no room for, somebody will ask for again.
    pub(super) fn ask(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let is_put_off = names.put_off.get(name).is_some_and(|until| *until > Instant::now());
        if is_put_off || names.known.contains(name) || names.waiting.len() >= WAITING_MAX {
            return;
        }
        let of_domain = names.of_domain.entry(registrable(name).to_owned()).or_default();
        if *of_domain >= OF_DOMAIN_MAX {
            return;
        }
        *of_domain += 1;
        names.known.insert(name.to_owned());
        names.waiting.push_back(name.to_owned());
        drop(names);
        self.told.notify_one();
    }

    /// The next name, once there is one.
    pub(super) async fn next(&self) -> String {
        loop {
            if let Some(name) = self.take() {
                return name;
            }
            self.told.notified().await;
        }
    }

    fn take(&self) -> Option<String> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.waiting.pop_front()?;
        names.known.remove(&name);
        let domain = registrable(&name);
        if let Some(of_domain) = names.of_domain.get_mut(domain) {
            *of_domain -= 1;
            if *of_domain == 0 {
                names.of_domain.remove(domain);
            }
        }
        Some(name)
    }

    /// For so long a name is not to be looked at again, however many ask for it.
    pub(super) fn put_off(&self, name: String, pause: Duration) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if names.put_off.len() >= PUT_OFF_MAX {
            names.put_off.retain(|_, until| *until > now);
        }
        // Where so many names are permitted, some are looked at more often: that costs a question to the store.
        if names.put_off.len() < PUT_OFF_MAX {
            names.put_off.insert(name, now + pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(demand: &Demand) -> Vec<String> {
        std::iter::from_fn(|| demand.take()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_waits_once_and_not_while_it_is_put_off() {
        let demand = Demand::default();
        for name in ["shop.one.test", "shop.two.test", "shop.one.test"] {
            demand.ask(name);
        }
        assert_eq!(demand.next().await, "shop.one.test");
        demand.put_off("shop.one.test".to_owned(), Duration::from_mins(1));
        demand.ask("shop.one.test");
        assert_eq!(taken(&demand), ["shop.two.test"]);
        tokio::time::advance(Duration::from_secs(61)).await;
        demand.ask("shop.one.test");
        assert_eq!(taken(&demand), ["shop.one.test"]);
    }

    #[tokio::test]
    async fn names_of_one_domain_leave_room_for_others() {
        let demand = Demand::default();
        for number in 0..1000 {
            demand.ask(&format!("n{number}.customer.test"));
        }
        demand.ask("shop.other.test");
        let all = taken(&demand);
        assert_eq!(all.len(), OF_DOMAIN_MAX + 1);
        assert_eq!(all.last().unwrap(), "shop.other.test");
        // Taken ones make room.
        demand.ask("n999.customer.test");
        assert_eq!(taken(&demand), ["n999.customer.test"]);
        for number in 0..1000 {
            demand.ask(&format!("shop.n{number}.test"));
        }
        assert_eq!(taken(&demand).len(), WAITING_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_has_a_bound() {
        let demand = Demand::default();
        for number in 0..2 * PUT_OFF_MAX {
            demand.put_off(format!("n{number}.test"), Duration::from_mins(1));
        }
        let remembered = || demand.names.lock().unwrap().put_off.len();
        assert_eq!(remembered(), PUT_OFF_MAX);
        tokio::time::advance(Duration::from_secs(61)).await;
        demand.put_off("shop.test".to_owned(), Duration::from_mins(1));
        assert_eq!(remembered(), 1);
    }
}
