//! How long to wait before the next attempt.
//!
//! **Invariant:** pure; the random number is an argument.

/// Ceiling of the wait after the first fault of ours, in ms; it doubles with each further one. The function's own
/// delays have no say in it: what fails on our side must have time to get well before the faults are spent.
const FAULT_DELAY_MS_BASE: u64 = 100;
/// Longest wait after a fault, in ms: what we did to a caller should not cost it long.
const FAULT_DELAY_MS_MAX: u64 = 5_000;

/// The delay before attempt `next_attempt` (2 for the first retry), in ms: full jitter over a doubling
/// ceiling. `jitter` spreads over `0..=u32::MAX`.
pub fn retry_delay_ms(
    base_delay_ms: u64,
    max_delay_ms: u64,
    next_attempt: u32,
    jitter: u32,
) -> u64 {
    let doublings = next_attempt.saturating_sub(2).min(62);
    let ceiling = base_delay_ms
        .saturating_mul(1 << doublings)
        .min(max_delay_ms);
    let scaled = (u128::from(ceiling) * (u128::from(jitter) + 1)) >> 32;
    u64::try_from(scaled).unwrap_or(max_delay_ms)
}

/// The delay after the fault of this number (1 for the first), in ms: between half of a doubling ceiling and all
/// of it. So faults, however fast each comes, take a time that grows with them.
pub fn fault_delay_ms(faults: u32, jitter: u32) -> u64 {
    let ceiling = |jitter| {
        let next = faults.saturating_add(1);
        retry_delay_ms(FAULT_DELAY_MS_BASE, FAULT_DELAY_MS_MAX, next, jitter)
    };
    let least = ceiling(u32::MAX) / 2;
    least + ceiling(jitter).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::{fault_delay_ms, retry_delay_ms};

    const LOWEST: u32 = 0;
    const HIGHEST: u32 = u32::MAX;

    #[test]
    fn base_zero_is_at_once_whatever_the_attempt() {
        for attempt in [2, 3, 50, u32::MAX] {
            assert_eq!(retry_delay_ms(0, 30_000, attempt, HIGHEST), 0);
        }
    }

    #[test]
    fn the_ceiling_doubles_and_is_capped() {
        let ceilings: Vec<u64> = (2..=8)
            .map(|attempt| retry_delay_ms(100, 1_000, attempt, HIGHEST))
            .collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
        assert_eq!(retry_delay_ms(100, 50, 2, HIGHEST), 50);
        assert_eq!(
            retry_delay_ms(u64::MAX, u64::MAX, u32::MAX, HIGHEST),
            u64::MAX
        );
    }

    #[test]
    fn attempts_below_the_first_retry_wait_like_it() {
        assert_eq!(retry_delay_ms(100, 1_000, 0, HIGHEST), 100);
        assert_eq!(retry_delay_ms(100, 1_000, 1, HIGHEST), 100);
    }

    #[test]
    fn faults_wait_longer_and_longer_and_never_nothing() {
        let waits = |jitter| -> Vec<u64> {
            let faults = (1..=8).chain([u32::MAX]);
            faults.map(|fault| fault_delay_ms(fault, jitter)).collect()
        };
        let most = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000];
        assert_eq!(waits(HIGHEST), most);
        assert_eq!(waits(LOWEST), most.map(|most| most / 2));
        assert_eq!(fault_delay_ms(2, HIGHEST / 2), 150);
        let twenty: u64 = (1..=20).map(|fault| fault_delay_ms(fault, LOWEST)).sum();
        assert!(
            twenty > 35_000,
            "a fault that lasts spends twenty in {twenty} ms"
        );
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, LOWEST), 0);
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, HIGHEST / 2), 500);
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, HIGHEST), 1_000);
    }
}
