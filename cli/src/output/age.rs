//! Times and sizes in few characters.

use jiff::Timestamp;

/// The time since `then`, as kubectl writes it: at most two units, the coarser the longer ago. Empty where there is none.
pub(crate) fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return String::new() };
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |large: i64, unit: char, small: i64, part: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{part}") }
    };
    match seconds {
        // The clocks of two machines differ.
        ..1 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, 'y', days % 365, 'd'),
    }
}

/// Bytes as Docker writes them, in thousands: `4.27MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if amount < 999.5 {
            return match amount {
                _ if unit == "B" => format!("{bytes}B"),
                ..10.0 => format!("{amount:.2}{unit}"),
                10.0..100.0 => format!("{amount:.1}{unit}"),
                _ => format!("{amount:.0}{unit}"),
            };
        }
        amount /= 1000.0;
    }
    format!("{amount:.0}PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_at_most_two_units() {
        let now = Timestamp::from_second(1_000_000_000).expect("in range");
        let ago = |seconds: i64| age(Timestamp::from_second(now.as_second() - seconds).ok(), now);

        let seen = [-5, 0, 119, 125, 601, 11_000, 90_000, 200_000, 8_000_000, 70_000_000].map(ago);
        assert_eq!(seen, ["0s", "0s", "119s", "2m5s", "10m", "3h3m", "25h", "2d7h", "92d", "2y80d"]);
        assert_eq!(age(None, now), "");
    }

    #[test]
    fn a_size_has_three_digits() {
        let seen = [0, 999, 1_000, 4_269_678, 12_345_678, 999_600_000, 7_000_000_000_000_000].map(size);
        assert_eq!(seen, ["0B", "999B", "1.00kB", "4.27MB", "12.3MB", "1.00GB", "7PB"]);
    }
}
