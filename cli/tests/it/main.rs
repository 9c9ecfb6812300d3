//! The built program, from the outside.

mod dev;
mod token;
mod world;
