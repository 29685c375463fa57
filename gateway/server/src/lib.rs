//! Acts: intake, session, relay, records; the binary corinth-gateway.
