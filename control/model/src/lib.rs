//! The vocabulary of Corinth: names, identity, locality, exports, routes; pure.
