//! The one value of its kind, or the finding that there is none or more than one.

/// Counts to one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Only<T> {
    /// None seen.
    #[default]
    None,
    /// Exactly this one.
    One(T),
    /// More than one.
    Several,
}

impl<T> Only<T> {
    pub(crate) fn add(&mut self, value: T) {
        *self = match self {
            Self::None => Self::One(value),
            Self::One(_) | Self::Several => Self::Several,
        };
    }

    pub(crate) fn one(&self) -> Option<&T> {
        match self {
            Self::One(value) => Some(value),
            Self::None | Self::Several => None,
        }
    }
}
