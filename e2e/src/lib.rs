//! The whole system against real Docker Engines, real Postgres and the real kubectl.
