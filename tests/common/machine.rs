//! How late the machine itself is.
//!
//! A promise in milliseconds is drainit's; that the kernel gives it the CPU when it is due is not. So the tests
//! that measure have a sleeper of their own, which does nothing but find out how much too late it is woken, and
//! allow for exactly that, at exactly that time. On an idle machine it is next to nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(5);

pub struct Sleeper {
    naps: Arc<Mutex<Vec<(Instant, Duration)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sleeper {
    pub fn start() -> Self {
        let naps = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, ended) = (Arc::clone(&naps), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                thread::sleep(NAP);
                let woken = Instant::now();
                seen.lock().unwrap().push((woken, woken - start - NAP));
            }
        });
        Self { naps, stop, thread: Some(thread) }
    }

    /// By how much, all naps together, a sleeper was woken too late in that time. All of them, because what is
    /// measured is a chain: a timer, a signal, a death, a parent, each of them somebody to be woken.
    pub fn lateness(&self, from: Instant, to: Instant) -> Duration {
        // The nap that the end falls into has to end itself.
        thread::sleep(2 * NAP);
        let naps = self.naps.lock().unwrap();
        naps.iter().filter(|(at, late)| *at >= from && *at - *late <= to).map(|(_, late)| *late).sum()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
