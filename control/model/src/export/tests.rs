//! Views hold what was exported to a peer, and nothing else.
