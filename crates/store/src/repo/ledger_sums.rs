//! Sums of entries of the ledger, and how numbers are packed: in a row of the roll-ups the sums of many series, in a
//! row of the tail those of a batch.

use agentkeep_core::{Error, LedgerEntry, MoneyTotal, Result, TokenCounts};

/// Numbers that are summed.
pub(super) const SUMS: usize = 9;
/// Series that share a row of the roll-ups: about as many as a page has room for.
pub(super) const BLOCK: usize = 128;
/// Bytes of a number.
const LONGEST: usize = size_of::<i64>();

/// Sums of entries: how many, the tokens of each kind, the cost in units of 2^32 and the rest, and how many have no
/// known cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums(pub [i64; SUMS]);

impl Sums {
    pub(super) fn of(entry: &LedgerEntry) -> Self {
        let TokenCounts { input, output, cache_read, cache_write, reasoning } = entry.tokens;
        let cost = entry.cost.map_or(0, agentkeep_core::Money::units);
        let unpriced = i64::from(entry.cost.is_none());
        Self([1, input, output, cache_read, cache_write, reasoning, cost >> 32, cost & 0xffff_ffff, unpriced])
    }

    pub(super) fn add(&mut self, other: &Self, sign: i64) -> Result<()> {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.checked_add(sign * more).ok_or_else(|| Error::Database {
                code: Some("22003".into()),
                message: "a sum of the ledger does not fit 64 bits".into(),
            })?;
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> i64 {
        self.0[0]
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn tokens(&self) -> TokenCounts {
        let [_, input, output, cache_read, cache_write, reasoning, ..] = self.0;
        TokenCounts { input, output, cache_read, cache_write, reasoning }
    }

    pub(super) fn cost(&self) -> MoneyTotal {
        MoneyTotal::from_halves(self.0[6], self.0[7])
    }

    pub(super) fn unpriced(&self) -> i64 {
        self.0[8]
    }
}

/// Packs numbers: half a byte for the length of each, then each, lowest byte first, without the zero bytes at its end.
pub(super) fn put(packed: &mut Vec<u8>, numbers: &[i64]) {
    let lengths = packed.len();
    packed.resize(lengths + numbers.len().div_ceil(2), 0);
    for (index, number) in numbers.iter().enumerate() {
        let length = LONGEST - number.leading_zeros() as usize / 8;
        packed.extend(&number.to_le_bytes()[..length]);
        packed[lengths + index / 2] |= (length as u8) << (index % 2 * 4);
    }
}

/// Takes as many numbers as [`put`] has packed; `None` when there are not as many.
#[inline]
pub(super) fn take<const N: usize>(packed: &mut &[u8]) -> Option<[i64; N]> {
    let (lengths, mut rest) = packed.split_at_checked(N.div_ceil(2))?;
    let mut numbers = [0; N];
    for (index, number) in numbers.iter_mut().enumerate() {
        let length = usize::from(lengths[index / 2] >> (index % 2 * 4) & 15);
        if length == 0 {
            continue;
        }
        *number = match rest.first_chunk::<LONGEST>() {
            Some(bytes) if length <= LONGEST => u64::from_le_bytes(*bytes) & u64::MAX >> (64 - 8 * length),
            _ => {
                let mut bytes = [0; LONGEST];
                bytes.get_mut(..length)?.copy_from_slice(rest.get(..length)?);
                u64::from_le_bytes(bytes)
            }
        }
        .cast_signed();
        rest = &rest[length..];
    }
    *packed = rest;
    Some(numbers)
}

/// The sums of a block of series as one value. Each series that has any takes some twenty bytes instead of the seventy
/// that they would take as numbers, to say nothing of a row for each.
pub(super) fn pack(sums: &[Sums]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(sums.len() * 32);
    for (place, sums) in sums.iter().enumerate() {
        if !sums.is_zero() {
            let [a, b, c, d, e, f, g, h, i] = sums.0;
            put(&mut packed, &[place as i64, a, b, c, d, e, f, g, h, i]);
        }
    }
    packed
}

/// Gives each series that has sums in a packed value: its place in the block, and the sums.
pub(super) fn unpack(mut packed: &[u8], mut each: impl FnMut(usize, &Sums) -> Result<()>) -> Result<()> {
    let damaged = || Error::database("a row of ledger_rollups cannot be read; rebuild the roll-ups");
    while !packed.is_empty() {
        let [place, sums @ ..] = take::<{ 1 + SUMS }>(&mut packed).ok_or_else(damaged)?;
        let place = usize::try_from(place).ok().filter(|place| *place < BLOCK).ok_or_else(damaged)?;
        each(place, &Sums(sums))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(packed: &[u8]) -> Result<Vec<(usize, Sums)>> {
        let mut all = Vec::new();
        unpack(packed, |place, sums| {
            all.push((place, *sums));
            Ok(())
        })?;
        Ok(all)
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), 0..300_i64, 0..1_i64 << 40, any::<i64>(), Just(i64::MAX), Just(i64::MIN)]
    }

    proptest! {
        #[test]
        fn sums_come_back_as_they_went_in(sums in prop::collection::vec(prop::array::uniform9(number()), 0..BLOCK)) {
            let sums: Vec<Sums> = sums.into_iter().map(Sums).collect();
            let expected: Vec<(usize, Sums)> =
                sums.iter().copied().enumerate().filter(|(_, sums)| !sums.is_zero()).collect();
            prop_assert_eq!(unpacked(&pack(&sums)).expect("sums"), expected);
        }

        #[test]
        fn a_value_that_ends_early_or_is_none_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 1..20_usize) {
            // Whatever it says: no panic.
            let _ = unpacked(&bytes);
            let packed = pack(&[Sums([1, 2, 300, 4, 5, 6, 7, 1 << 40, 9]); 3]);
            prop_assert!(unpacked(&packed[..packed.len() - cut.min(packed.len() / 3 - 1)]).is_err());
        }
    }

    #[test]
    fn sums_add_up_and_an_overflow_is_told() {
        let mut sums = Sums([2; SUMS]);
        sums.add(&Sums([3; SUMS]), -1).expect("sums");
        assert_eq!(sums, Sums([-1; SUMS]));
        let mut most = Sums([i64::MAX; SUMS]);
        assert!(most.add(&Sums([1; SUMS]), 1).is_err());
    }
}
