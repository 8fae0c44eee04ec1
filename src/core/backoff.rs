//! How long a crashed worker's slot stays empty.

use std::time::Duration;

use super::config::Backoff;
use super::rng::Rng;

/// The delay before the replacement of a worker whose slot has seen `deaths` deaths in a row, none of them
/// after a healthy life: at once after the first, then anything in `0..=min(MAX, MIN·2ⁿ)`. Full jitter, so
/// that workers which died together do not come back together.
pub(super) fn delay(backoff: Backoff, deaths: u32, rng: &mut Rng) -> Duration {
    let Some(doublings) = deaths.checked_sub(2) else { return Duration::ZERO };
    let ceiling = backoff.min.saturating_mul(2u32.saturating_pow(doublings)).min(backoff.max);
    rng.up_to(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(30) };

    #[test]
    fn the_first_death_is_healed_at_once() {
        assert_eq!(delay(BACKOFF, 0, &mut Rng::new(1)), Duration::ZERO);
        assert_eq!(delay(BACKOFF, 1, &mut Rng::new(1)), Duration::ZERO);
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let mut rng = Rng::new(7);
        let mut longest = |deaths| (0..2_000).map(|_| delay(BACKOFF, deaths, &mut rng)).max();
        let near = |longest: Option<Duration>, ceiling: u64| {
            let longest = longest.unwrap_or_default().as_millis();
            longest <= u128::from(ceiling) && longest * 10 >= u128::from(ceiling) * 9
        };
        assert!(near(longest(2), 100));
        assert!(near(longest(3), 200));
        assert!(near(longest(10), 25_600));
        assert!(near(longest(11), 30_000));
        assert!(near(longest(u32::MAX), 30_000));
    }
}
