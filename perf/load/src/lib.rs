//! Loads a path and tells the truth about it.
//!
//! For whoever wants to know what a gateway costs: `corinth-perf server|client`, `corinth bench`, and the campaigns
//! that compare gateways. It never starts a gateway, never changes the machine, and never reports a figure it could
//! not measure: what is missing is missing, not zero.
//!
//! A client tells the server over a control connection what it is going to do ; both then run one
//! workload  on data connections, count ([`measure`]), and the client joins both sides' counts and the
//! state of the machine into one result .
