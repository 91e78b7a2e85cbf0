//! The CMOS clock (MC146818) and its NVRAM, ports 0x70 and 0x71.
//!
//! The clock shows the epoch of the manifest plus virtual time plus what the guest set it ahead
//! by. It is never caught in the middle of an update, has no alarm and raises no interrupt.

use serde::{Deserialize, Serialize};

use crate::tick::VirtualTime;

/// Bytes of CMOS memory, clock registers included.
const CMOS_LEN: usize = 128;
const REG_A: u8 = 0x0a;
const REG_B: u8 = 0x0b;
const REG_C: u8 = 0x0c;
const REG_D: u8 = 0x0d;
/// The century, where PCs keep it (and where the FADT says it is).
pub const REG_CENTURY: u8 = 0x32;

/// Register A: 32768 Hz time base, 1024 Hz periodic rate, no update in progress.
const A_RESET: u8 = 0x26;
/// Register B: 24-hour mode, BCD.
const B_RESET: u8 = 0x02;
/// Register B: the clock is held so that it can be set.
const B_SET: u8 = 1 << 7;
/// Register B: binary instead of BCD.
const B_BINARY: u8 = 1 << 2;
/// Register B: 24-hour mode.
const B_24H: u8 = 1 << 1;
/// Register D: the battery is good.
const D_VALID: u8 = 1 << 7;
/// Hour register in 12-hour mode: afternoon.
const HOUR_PM: u8 = 1 << 7;

const SECONDS_PER_DAY: i64 = 86_400;

/// A date and time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Civil {
    /// From seconds since 1970, in the proleptic Gregorian calendar; the year starts in March so
    /// that the leap day comes last.
    fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let time = seconds.rem_euclid(SECONDS_PER_DAY);
        let from_march_0 = days + 719_468;
        let era = from_march_0.div_euclid(146_097);
        let day_of_era = from_march_0.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            hour: (time / 3600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }

    /// Seconds since 1970; fields out of their range carry over.
    fn to_seconds(self) -> i64 {
        let month = i64::from(self.month);
        let year = self.year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * SECONDS_PER_DAY
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    /// Sunday is 1.
    fn weekday(self) -> u8 {
        (self.to_seconds().div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7) as u8 + 1
    }
}

/// State of the clock and the NVRAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {
    index: u8,
    b: u8,
    /// Seconds since 1970 the clock shows at virtual time 0.
    base: i64,
    /// The date while the guest holds the clock to set it.
    held: Option<Civil>,
    /// What is not clock: alarm bytes and NVRAM.
    memory: Vec<u8>,
}

impl Rtc {
    /// A clock that shows `epoch_s` seconds since 1970 at virtual time 0.
    pub fn new(epoch_s: u64) -> Self {
        Self {
            index: 0,
            b: B_RESET,
            // The clock has four digits of year: whatever is beyond makes no difference to it.
            base: i64::try_from(epoch_s).unwrap_or(0).min(253_402_300_799),
            held: None,
            memory: vec![0; CMOS_LEN],
        }
    }

    fn seconds(now: VirtualTime) -> i64 {
        (now.0 / 1_000_000_000) as i64
    }

    fn civil(&self, now: VirtualTime) -> Civil {
        self.held
            .unwrap_or_else(|| Civil::from_seconds(self.base + Self::seconds(now)))
    }

    const fn encode(&self, value: u8) -> u8 {
        if self.b & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    const fn decode(&self, value: u8) -> u8 {
        if self.b & B_BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 0xf)
        }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b & B_24H != 0 {
            return self.encode(hour);
        }
        // A guest can set any byte as the hour.
        let twelve = (hour % 12 + 11) % 12 + 1;
        self.encode(twelve) | if hour >= 12 { HOUR_PM } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.b & B_24H != 0 {
            return self.decode(value);
        }
        self.decode(value & !HOUR_PM) % 12 + if value & HOUR_PM != 0 { 12 } else { 0 }
    }

    /// Reads port 0x70 (0) or 0x71 (1).
    pub fn read(&self, port: u16, now: VirtualTime) -> u8 {
        if port == 0 {
            return 0xff;
        }
        let civil = self.civil(now);
        match self.index {
            0x00 => self.encode(civil.second),
            0x02 => self.encode(civil.minute),
            0x04 => self.encode_hour(civil.hour),
            0x06 => self.encode(civil.weekday()),
            0x07 => self.encode(civil.day),
            0x08 => self.encode(civil.month),
            0x09 => self.encode(civil.year.rem_euclid(100) as u8),
            REG_CENTURY => self.encode(civil.year.div_euclid(100).rem_euclid(100) as u8),
            REG_A => A_RESET,
            REG_B => self.b,
            REG_C => 0,
            REG_D => D_VALID,
            index => self.memory.get(usize::from(index)).copied().unwrap_or(0xff),
        }
    }

    /// Writes port 0x70 (0) or 0x71 (1).
    pub fn write(&mut self, port: u16, value: u8, now: VirtualTime) {
        if port == 0 {
            // Bit 7 masks the NMI on a PC.
            self.index = value & 0x7f;
            return;
        }
        match self.index {
            0x00 | 0x02 | 0x04 | 0x07 | 0x08 | 0x09 | REG_CENTURY => self.set_field(value, now),
            // The weekday follows from the date; A keeps its rates; C and D are read-only.
            0x06 | REG_A | REG_C | REG_D => {}
            REG_B => self.write_b(value, now),
            index => {
                if let Some(byte) = self.memory.get_mut(usize::from(index)) {
                    *byte = value;
                }
            }
        }
    }

    fn set_field(&mut self, value: u8, now: VirtualTime) {
        let mut civil = self.civil(now);
        match self.index {
            0x00 => civil.second = self.decode(value),
            0x02 => civil.minute = self.decode(value),
            0x04 => civil.hour = self.decode_hour(value),
            0x07 => civil.day = self.decode(value),
            0x08 => civil.month = self.decode(value),
            0x09 => {
                civil.year = civil.year.div_euclid(100) * 100 + i64::from(self.decode(value));
            }
            _ => civil.year = i64::from(self.decode(value)) * 100 + civil.year.rem_euclid(100),
        }
        if self.held.is_some() {
            self.held = Some(civil);
        } else {
            self.base = civil.to_seconds() - Self::seconds(now);
        }
    }

    fn write_b(&mut self, value: u8, now: VirtualTime) {
        // Interrupts and square wave are not there: their enables stay clear.
        let mode = value & (B_SET | B_BINARY | B_24H | 1);
        match (value & B_SET != 0, self.held) {
            (true, None) => self.held = Some(self.civil(now)),
            (false, Some(civil)) => {
                self.held = None;
                self.base = civil.to_seconds() - Self::seconds(now);
            }
            _ => {}
        }
        self.b = mode;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(s: u64) -> VirtualTime {
        VirtualTime(s * 1_000_000_000)
    }

    fn get(rtc: &mut Rtc, index: u8, now: VirtualTime) -> u8 {
        rtc.write(0, index, now);
        rtc.read(1, now)
    }

    fn put(rtc: &mut Rtc, index: u8, value: u8, now: VirtualTime) {
        rtc.write(0, index, now);
        rtc.write(1, value, now);
    }

    /// Century, year, month, day, hour, minute, second as the registers show them.
    fn shown(rtc: &mut Rtc, now: VirtualTime) -> [u8; 7] {
        [REG_CENTURY, 9, 8, 7, 4, 2, 0].map(|index| get(rtc, index, now))
    }

    #[test]
    fn calendar_round_trips_and_knows_leap_days() {
        assert_eq!(
            Civil::from_seconds(0).weekday(),
            5,
            "1970 began on a Thursday"
        );
        let leap = Civil::from_seconds(1_709_210_096);
        assert_eq!((leap.year, leap.month, leap.day), (2024, 2, 29));
        assert_eq!((leap.hour, leap.minute, leap.second), (12, 34, 56));
        for seconds in (-5_000_000_000..10_000_000_000).step_by(86_399 * 31) {
            assert_eq!(Civil::from_seconds(seconds).to_seconds(), seconds);
        }
    }

    #[test]
    fn shows_epoch_plus_virtual_time_in_bcd() {
        let mut rtc = Rtc::new(946_684_799);
        assert_eq!(
            shown(&mut rtc, seconds(0)),
            [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]
        );
        assert_eq!(shown(&mut rtc, seconds(1)), [0x20, 0, 1, 1, 0, 0, 0]);
        assert_eq!(get(&mut rtc, 6, seconds(1)), 7, "a Saturday");
        assert_eq!(get(&mut rtc, REG_A, seconds(1)) & 0x80, 0);
        assert_eq!(get(&mut rtc, REG_D, seconds(1)), 0x80);
        assert_eq!(
            get(&mut rtc, 0x80 | REG_B, seconds(1)),
            0x02,
            "the NMI bit is not an index"
        );
    }

    #[test]
    fn binary_and_twelve_hour_modes() {
        let mut rtc = Rtc::new(0);
        put(&mut rtc, REG_B, B_BINARY, seconds(0));
        for (hour, register) in [(0, 12), (11, 11), (12, 0x8c), (23, 0x8b)] {
            let now = seconds(hour * 3600 + 47);
            assert_eq!(get(&mut rtc, 4, now), register);
            assert_eq!(u64::from(rtc.decode_hour(register)), hour);
            assert_eq!(get(&mut rtc, 0, now), 47);
        }
    }

    #[test]
    fn the_guest_can_set_the_clock() {
        let mut rtc = Rtc::new(0);
        put(&mut rtc, REG_B, 0x82, seconds(10));
        let new = [
            (REG_CENTURY, 0x20),
            (9, 0x31),
            (8, 2),
            (7, 0x28),
            (4, 0x23),
            (2, 0x59),
            (0, 0),
        ];
        for (index, value) in new {
            put(&mut rtc, index, value, seconds(10));
        }
        assert_eq!(get(&mut rtc, 0, seconds(15)), 0, "held");
        put(&mut rtc, REG_B, 0x02, seconds(20));
        assert_eq!(
            shown(&mut rtc, seconds(79)),
            [0x20, 0x31, 2, 0x28, 0x23, 0x59, 0x59]
        );
        assert_eq!(shown(&mut rtc, seconds(80)), [0x20, 0x31, 3, 1, 0, 0, 0]);
    }

    #[test]
    fn nvram_stores_and_any_value_is_survived() {
        let mut rtc = Rtc::new(u64::MAX);
        put(&mut rtc, 0x40, 0x5a, seconds(0));
        assert_eq!(get(&mut rtc, 0x40, seconds(0)), 0x5a);
        for index in 0..=0xff {
            for value in [0, 0x7f, 0xff] {
                put(&mut rtc, index, value, VirtualTime(u64::MAX));
                get(&mut rtc, index, VirtualTime(u64::MAX));
            }
        }
    }
}
