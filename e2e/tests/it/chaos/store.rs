//! A Postgres that is full, crashes, turns read-only, has no connections left, or holds poison.
