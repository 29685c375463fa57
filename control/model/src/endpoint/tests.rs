//! What can and cannot be delivered to.
