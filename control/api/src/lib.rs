//! The wire: protobuf messages and the validation of everything foreign.
