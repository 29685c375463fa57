//! Decides: which candidates a connection tries, who may come in; pure.
