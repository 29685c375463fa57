//! Every rule of a name, with the neighbours on both sides of it.
