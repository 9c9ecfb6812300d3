//! The Kubernetes API over the store: what kubectl, kube-rs and our own reconcilers speak to.
//!
//! Knows HTTP, verbs and kinds. Does not know Postgres (that is [`crate::storage`]), TLS and who the caller is (the server puts a
//! [`crate::auth::Caller`] into the request's extensions), nor what a kind's spec means (the reconcilers).

pub mod admission;
pub mod decode;
pub mod failure;
pub mod kinds;
mod protobuf;
pub mod schema;
