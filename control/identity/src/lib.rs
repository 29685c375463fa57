//! Who we are: certificate authority, trust bundles, SPIFFE verification, rotation.
