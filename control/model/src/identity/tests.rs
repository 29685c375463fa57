//! Every malformation of a SPIFFE ID, and the roles.
