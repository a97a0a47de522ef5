//! Cookie dates: the lenient parser of RFC 6265bis §5.1.1, and a writer.

use super::Timestamp;

/// Parses a cookie date with the algorithm of RFC 6265bis §5.1.1.
///
/// Returns `None` if the algorithm fails. Years from 1601 to 9999 are valid.
///
/// # Examples
///
/// ```
/// use tower_client_sessions::cookies::{Timestamp, parse_date};
///
/// assert_eq!(parse_date(b"Thu, 01-Jan-70 00:00:10 GMT"), Some(Timestamp::from_secs(10)));
/// assert_eq!(parse_date(b"00:00:10 1 1970 january"), Some(Timestamp::from_secs(10)));
/// assert_eq!(parse_date(b"yesterday"), None);
/// ```
pub fn parse_date(text: &[u8]) -> Option<Timestamp> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);

    for token in text.split(|&byte| is_delimiter(byte)).filter(|token| !token.is_empty()) {
        // A token sets the first field, in this order, that it matches and that is not set yet.
        if time.is_none() {
            time = read_time(token);
            if time.is_some() {
                continue;
            }
        }
        if day.is_none() {
            day = read_number(token, 1, 2);
            if day.is_some() {
                continue;
            }
        }
        if month.is_none() {
            month = read_month(token);
            if month.is_some() {
                continue;
            }
        }
        if year.is_none() {
            year = read_number(token, 2, 4);
        }
    }

    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    if year < 1601 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if day < 1 || day > days_in_month(year, month) {
        return None;
    }

    let days = days_since_epoch(year, month, day);
    let secs = days * 86_400 + i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    Some(Timestamp::from_secs(secs))
}

/// Formats a time as an IMF-fixdate, which [`parse_date`] and all servers understand.
pub(super) fn write_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // The range of years that the parser accepts.
    let secs = time.as_secs().clamp(-11_644_473_600, 253_402_300_799);
    let (days, second_of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize - 1],
        second_of_day / 3_600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    )
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2F | 0x3B..=0x40 | 0x5B..=0x60 | 0x7B..=0x7E)
}

/// Parses `min` to `max` leading digits. Anything except a digit may follow.
fn read_number(token: &[u8], min: usize, max: usize) -> Option<u32> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits < min || digits > max {
        return None;
    }
    Some(token[..digits].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Parses `hh:mm:ss` with one or two digits per field. Anything except a digit may follow.
fn read_time(token: &[u8]) -> Option<(u32, u32, u32)> {
    let mut parts = token.splitn(3, |&byte| byte == b':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if !whole(hour) || !whole(minute) {
        return None;
    }
    Some((read_number(hour, 1, 2)?, read_number(minute, 1, 2)?, read_number(second, 1, 2)?))
}

fn read_month(token: &[u8]) -> Option<u32> {
    let name = token.first_chunk::<3>()?.map(|byte| byte.to_ascii_lowercase());
    Some(match &name {
        b"jan" => 1,
        b"feb" => 2,
        b"mar" => 3,
        b"apr" => 4,
        b"may" => 5,
        b"jun" => 6,
        b"jul" => 7,
        b"aug" => 8,
        b"sep" => 9,
        b"oct" => 10,
        b"nov" => 11,
        b"dec" => 12,
        _ => return None,
    })
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Converts a date to days since the epoch. Counts years from March, so that leap days come last.
fn days_since_epoch(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let month = i64::from((month + 9) % 12);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    // There are 719,468 days between 1 March of the year 0 and the epoch.
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The inverse of [`days_since_epoch`].
fn date_of(days: i64) -> (u32, u32, u32) {
    let mut year = (1970 + days.div_euclid(366)) as u32;
    if days < 0 {
        year = (1970 + days.div_euclid(365)) as u32;
    }
    // The estimate is at most a few years too low.
    while days_since_epoch(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut rest = (days - days_since_epoch(year, 1, 1)) as u32;
    let mut month = 1;
    while rest >= days_in_month(year, month) {
        rest -= days_in_month(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse_date(text.as_bytes()).map(Timestamp::as_secs), expected, "{text:?}");
    }

    #[test]
    fn tokens_may_come_in_any_order() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("1994 08:49:37 6november", None);
        check("08:49:37 6 1994 november", Some(784_111_777));
        check("6th~8:49:37x~novembre~94", Some(784_111_777));
    }

    #[test]
    fn two_digits_of_a_year_mean_1970_to_2069() {
        check("1 Jan 70 00:00:00", Some(0));
        check("1 Jan 69 00:00:00", Some(3_124_224_000));
        check("1 Jan 99 00:00:00", Some(915_148_800));
        check("1 Jan 00 00:00:00", Some(946_684_800));
        check("1 Jan 100 00:00:00", None);
    }

    #[test]
    fn fields_outside_their_range_fail() {
        check("1 Jan 1600 00:00:00", None);
        check("1 Jan 1601 00:00:00", Some(-11_644_473_600));
        check("0 Jan 2000 00:00:00", None);
        check("32 Jan 2000 00:00:00", None);
        check("31 Apr 2000 00:00:00", None);
        check("29 Feb 1900 00:00:00", None);
        check("29 Feb 2000 00:00:00", Some(951_782_400));
        check("1 Jan 2000 24:00:00", None);
        check("1 Jan 2000 00:60:00", None);
        check("1 Jan 2000 00:00:60", None);
        check("001 Jan 2000 00:00:00", None);
        check("1 Jan 20000 00:00:00", None);
    }

    #[test]
    fn a_missing_field_fails() {
        check("", None);
        check("1 Jan 2000", None);
        check("Jan 2000 00:00:00", None);
        check("1 2000 00:00:00", None);
        check("1 Jan 00:00:00", None);
        check("1 Jan 2000 0:0", None);
    }

    #[test]
    fn written_dates_read_back() {
        let step = if cfg!(miri) { 86_399 * 100_900 } else { 86_399 * 1_009 };
        for secs in (-11_644_473_600..253_402_300_799).step_by(step) {
            let time = Timestamp::from_secs(secs);
            assert_eq!(parse_date(write_date(time).as_bytes()), Some(time));
        }
        assert_eq!(write_date(Timestamp::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
