//! Carries: tunnels between gateways.
