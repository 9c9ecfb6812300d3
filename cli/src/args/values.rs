//! Texts that become durations, times, numbers and addresses.

use jiff::{SignedDuration, Timestamp};

/// Times and durations are the controller's to read, but it knows no days.
pub(super) fn parse_moment(text: &str) -> Result<String, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(format!("{}h", u64::from(days) * 24));
    }
    if text.parse::<Timestamp>().is_ok() || text.parse::<SignedDuration>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("it must be a time as `2026-06-01T12:00:00Z`, or how long ago, as `36h` or `2d`".to_owned())
}

/// All of them are held in memory until they are shown.
pub(super) fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=100_000).contains(limit));
    limit.ok_or_else(|| "it must be between 1 and 100000".to_owned())
}

/// As many lines as the controller gives.
pub(super) fn parse_tail(text: &str) -> Result<u32, String> {
    let lines = text.parse().ok().filter(|lines| *lines <= 10_000);
    lines.ok_or_else(|| "it must be a number of lines, 10000 at most".to_owned())
}

/// As `90s` or `5m`.
pub(super) fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let duration = text.parse::<SignedDuration>().ok().filter(|duration| !duration.is_negative());
    duration.ok_or_else(|| format!("`{text}` is not a duration as `90s` or `5m`"))
}

pub(super) fn parse_ttl(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let ttl = match days {
        Some(days) => SignedDuration::from_hours(days.clamp(-1_000, 1_000) * 24),
        None => text.parse().map_err(|_| format!("`{text}` is not a duration as `90s`, `1h` or `2d`"))?,
    };
    if ttl < SignedDuration::from_secs(1) || ttl > SignedDuration::from_hours(30 * 24) {
        return Err("it must be between one second and 30 days".to_owned());
    }
    Ok(ttl)
}

pub(super) fn parse_controller(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte));
    if text.starts_with("https://") && text.len() > "https://".len() && is_plain {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("a controller's URL begins with https:// and has no query".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_time_has_a_unit_and_an_end() {
        assert_eq!(parse_ttl("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse_ttl("2d"), Ok(SignedDuration::from_hours(48)));
        for wrong in ["", "90", "0s", "-1h", "31d", "99999999999d", "soon"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_controller_that_could_break_out_of_the_printed_command_is_refused() {
        assert_eq!(
            parse_controller("https://gantry.example:7443/").as_deref(),
            Ok("https://gantry.example:7443")
        );
        for wrong in
            ["http://gantry.example", "https://", "https://a b", "https://a;reboot", "https://a\"$(x)"]
        {
            assert!(parse_controller(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(parse_moment("2d").as_deref(), Ok("48h"));
        assert_eq!(parse_moment("90m").as_deref(), Ok("90m"));
        assert_eq!(parse_moment("2026-06-01T12:00:00+02:00").as_deref(), Ok("2026-06-01T12:00:00+02:00"));
    }
}
