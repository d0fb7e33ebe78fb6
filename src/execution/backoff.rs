//! How long to wait before the next attempt.
//!
//! **Invariant:** pure; the random number is an argument.

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

#[cfg(test)]
mod tests {
    use super::retry_delay_ms;

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
    fn jitter_spreads_over_the_whole_range() {
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, LOWEST), 0);
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, HIGHEST / 2), 500);
        assert_eq!(retry_delay_ms(1_000, 60_000, 2, HIGHEST), 1_000);
    }
}
