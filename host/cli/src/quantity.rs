//! How people write amounts: bytes, rates, seconds.

use std::time::Duration;

use netchannel::Bandwidth;

/// Bytes: `65536`, `64K` or `64KiB` (1024), `1MB` (10^6).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(no_bytes(text)),
    };
    let number: u64 = digits.trim().parse().map_err(|_| no_bytes(text))?;
    number.checked_mul(unit).ok_or_else(|| format!("`{text}` is more than 2^64 bytes"))
}

fn no_bytes(text: &str) -> String {
    format!("`{text}` is no number of bytes; write for example 65536, 64KiB, 1MiB or 1MB")
}

/// Bytes that fit into memory.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    match bytes(text)? {
        0 => Err("at least 1 byte is needed".into()),
        many if many > 1 << 30 => Err(format!("`{text}` is more than the most there may be, 1GiB")),
        some => Ok(some as usize),
    }
}

/// A rate: `10gbit`, `2.5gbit`, `100mbit`.
pub(crate) fn rate(text: &str) -> Result<Bandwidth, String> {
    let wrong = || format!("`{text}` is no rate; write for example 10gbit or 250mbit");
    let (number, unit) = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)]
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !(number >= 0.0 && number * unit < 1e18) {
        return Err(wrong());
    }
    Ok(Bandwidth::from_bits_per_second((number * unit) as u64))
}

/// A short time: `5us`, `1.5ms`, `200ns`, `1s`.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("`{text}` is no time; write for example 5us or 1.5ms");
    let (number, unit) = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !(number >= 0.0 && number * unit <= 60.0) {
        return Err(wrong());
    }
    Ok(Duration::from_nanos((number * unit * 1e9).round() as u64))
}

/// A probability: `0.01`.
pub(crate) fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(format!("`{text}` is no probability, which is from 0 to 1"))
}

/// Seconds: `1`, `0.25`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no number of seconds; write for example 1 or 0.25");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err("the time must be above 0 and at most 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time with its unit: `1s`, `0.5s`, `200ms`; without one it is in seconds.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms") {
        Some(millis) => seconds(millis).map(|time| time / 1_000),
        None => seconds(text.strip_suffix('s').unwrap_or(text)),
    }
    .map_err(|_| format!("`{text}` is no time; write for example 1s or 200ms"))
}

/// Bytes for people.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes in powers of 1024, for sizes that are such.
pub(crate) fn show_binary(bytes: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = unit.into_iter().find(|(_, log2)| bytes > 0 && bytes.is_multiple_of(1 << log2));
    fits.map_or(format!("{bytes} B"), |(name, log2)| format!("{} {name}", bytes >> log2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_people_write_them() {
        for (text, value) in
            [("64", 64), ("64K", 65_536), ("64KiB", 65_536), ("1MiB", 1 << 20), ("1MB", 1_000_000)]
        {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "1 parsec", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(delay("0"), Ok(Duration::ZERO));
        assert!(size("0").is_err() && size("2G").is_err());
    }

    #[test]
    fn rates_and_times() {
        assert_eq!(rate("2.5gbit"), Ok(Bandwidth::from_bits_per_second(2_500_000_000)));
        assert!(rate("2.5").is_err() && rate("-1gbit").is_err() && rate("NaNgbit").is_err());
        assert_eq!(delay("5us"), Ok(Duration::from_micros(5)));
        assert_eq!(delay("1.5ms"), Ok(Duration::from_micros(1_500)));
        assert!(delay("5").is_err() && delay("us").is_err() && delay("infs").is_err());
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("0").is_err() && seconds("inf").is_err() && seconds("soon").is_err());
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(show_binary(65_536), "64 KiB");
        assert_eq!(show_binary(3 << 20), "3 MiB");
        assert_eq!(show_binary(1_000), "1000 B");
        assert_eq!(show_bytes(999), "999 B");
        assert_eq!(show_bytes(1_048_576), "1.0 MB");
        assert_eq!(show_bytes(999_990_000), "1.0 GB");
    }
}
