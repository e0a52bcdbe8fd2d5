//! Pure. A share of requests: drawn for each of them.

use model::{resource::Fraction, shape::Int};

use crate::Dice;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    numerator: u64,
    denominator: u64,
}

impl Share {
    /// All, unless one of these says otherwise.
    pub(super) fn new(percent: Option<Int<0, 100>>, fraction: Option<&Fraction>) -> Self {
        match (fraction, percent) {
            (Some(fraction), _) => {
                Self { numerator: fraction.numerator.value(), denominator: fraction.denominator.value() }
            }
            (None, Some(percent)) => Self { numerator: percent.value(), denominator: 100 },
            (None, None) => Self { numerator: 1, denominator: 1 },
        }
    }

    /// So many, of so many.
    pub(super) fn parts(self) -> (u64, u64) {
        (self.numerator, self.denominator)
    }

    /// Whether this request is one of them.
    pub(super) fn draw(self, dice: &mut Dice) -> bool {
        dice.below(self.denominator) < self.numerator
    }
}
