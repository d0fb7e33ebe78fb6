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
