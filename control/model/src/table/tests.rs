//! Look-ups, conflicts and pins.
