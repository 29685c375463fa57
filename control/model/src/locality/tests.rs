//! The order of tiers, and what is not known.
