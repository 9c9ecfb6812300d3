//! Who did what: which requests are recorded, what is told of them, and where the records go.
//!
//! Knows neither HTTP nor SQL. A request gets a [`Ticket`] before anything else; the write it leads to takes the ticket's record into its
//! own transaction, and what leads to none is recorded when it is answered.

mod command;
mod copies;
mod event;
mod policy;
mod sink;
mod source;
mod strangers;
mod trim;

pub use command::Command;
pub use copies::{Carrier, OtlpError, Outlet, Webhook, WebhookError, WebhookUrl};
pub use event::{Answered, Asked, Enrollment, Ticket, shown};
pub use policy::Outcome;
pub use sink::{Settings, Sink};
pub use source::{Network, client_address};
pub use trim::{Schedule, trim_daily};
