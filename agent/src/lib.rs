//! Sits beside one Docker Engine: reports it, and runs operations on it at most once each.
