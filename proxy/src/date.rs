//! Moments in writing, from the seconds since the epoch.

/// Year, month, day, hour, minute and second, UTC.
type Civil = [i64; 6];

/// Civil calendar from day numbers.
fn civil(second: i64) -> Civil {
    let (day, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    // Days are counted from 1 March 0000, so that leap days end their years.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    [year, month, day_of_month, of_day / 3600, of_day / 60 % 60, of_day % 60]
}

/// Writes numbers in so many digits each into places of `text`.
fn digits<const N: usize>(text: &mut [u8; N], fields: &[(usize, usize, i64)]) {
    for &(at, width, number) in fields {
        let mut number = number;
        for digit in text.iter_mut().skip(at).take(width).rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }
}

/// `2026-11-26T07:30:00.`
pub(crate) fn iso(second: i64) -> [u8; 20] {
    let [year, month, day, hour, minute, second] = civil(second);
    let mut text = *b"0000-00-00T00:00:00.";
    let fields =
        [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, hour), (14, 2, minute), (17, 2, second)];
    digits(&mut text, &fields);
    text
}

/// A moment in milliseconds since the epoch, as `2026-11-26T07:30:00.125Z`.
pub(crate) fn iso_ms(ms: i64) -> String {
    let second = iso(ms.div_euclid(1000));
    format!("{}{:03}Z", String::from_utf8_lossy(&second), ms.rem_euclid(1000))
}

/// `Thu, 26 Nov 2026 07:30:00 GMT` (RFC 9110, 5.6.7).
pub(crate) fn imf(second: i64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let weekday = second.div_euclid(86_400).rem_euclid(7);
    let [year, month, day, hour, minute, second] = civil(second);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    let mut name = |at: usize, names: &[u8], number: i64| {
        let from = usize::try_from(number).unwrap_or(0) * 3;
        if let (Some(to), Some(name)) = (text.get_mut(at..at + 3), names.get(from..from + 3)) {
            to.copy_from_slice(name);
        }
    };
    name(0, DAYS, weekday);
    name(8, MONTHS, month - 1);
    let fields = [(5, 2, day), (12, 4, year), (17, 2, hour), (20, 2, minute), (23, 2, second)];
    digits(&mut text, &fields);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_dates() {
        for (second, want) in [
            (0, "1970-01-01T00:00:00."),
            (951_782_399, "2000-02-28T23:59:59."),
            (951_782_400, "2000-02-29T00:00:00."),
            (1_709_251_199, "2024-02-29T23:59:59."),
            (1_795_678_200, "2026-11-26T07:30:00."),
            (4_107_542_399, "2100-02-28T23:59:59."),
            (4_107_542_400, "2100-03-01T00:00:00."),
        ] {
            assert_eq!(std::str::from_utf8(&iso(second)).unwrap(), want);
        }
    }

    #[test]
    fn seconds_are_written_as_dates_of_http() {
        for (second, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_678_200, "Thu, 26 Nov 2026 07:30:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&imf(second)).unwrap(), want);
        }
    }
}
