//! Links that are cut, one-way, half-open, slow or lossy.
