//! Medians, and ratios of figures that were taken side by side.

use crate::subject::Subject;

/// One subject's figures, a round each.
pub(crate) struct Series {
    pub(crate) subject: Subject,
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn of(subjects: &[Subject]) -> Vec<Self> {
        subjects.iter().map(|subject| Self { subject: subject.clone(), values: Vec::new() }).collect()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.values, part)
    }

    /// The median of the rounds' ratios, or another quantile.
    pub(crate) fn ratio_to(&self, reference: &Self, part: f64) -> f64 {
        let rounds = self.values.iter().zip(&reference.values);
        let ratios: Vec<_> = rounds.filter(|(_, base)| **base > 0.0).map(|(own, base)| own / base).collect();
        quantile(&ratios, part)
    }
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1)) as f64 * part;
    sorted.get(index.round() as usize).copied().unwrap_or(f64::NAN)
}

/// The order of a round: another one each time, the same in each run.
pub(crate) struct Shuffle(u64);

impl Shuffle {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn round(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}
