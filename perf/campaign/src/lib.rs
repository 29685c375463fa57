//! Compares gateways on one path.
//!
//! For choosing between gateways and for noticing that one became slower. It never quotes an absolute figure as a
//! verdict: everyone takes turns on the same path within each round, and only ratios are judged.
//!
//! A path of four namespaces is laid, every system found on the machine is started on it with a configuration that
//! can be shown, the loads of `corinth-load` run interleaved, and medians with their intervals become a report and a
//! verdict against a committed baseline.
