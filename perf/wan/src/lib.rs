//! A wide-area network between two network namespaces of one machine.
//!
//! For measuring and testing where the kernel has no netem. It never touches a namespace it was not given, and it
//! is no model of a real provider: it does exactly what it was told, the same for the same seed.
//!
//! A packet is read from the TUN device of one side, judged (pure, seeded: drop, delay, reorder,
//! duplicate, corrupt, queue), waits for its time, and is written to the device of the other side.
