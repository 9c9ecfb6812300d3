//! Changes of windows, which are requests of their own: they belong into the recordings of what is shown there.

use std::sync::Arc;

use gantry_api::engine_api::Request;

use crate::apiserver::ApiServer;
use crate::gateway::link::InstanceUid;
use crate::live::recording::windows::{Window, Windows};

/// A new size, once the engine has taken it.
pub(super) struct Resize {
    windows: Arc<Windows>,
    window: Window,
    columns: u32,
    rows: u32,
}

impl Resize {
    /// What the request says of a window; `None` if it is about something else.
    pub fn of(server: &ApiServer, instance: InstanceUid, request: &Request) -> Option<Self> {
        if !matches!(request.route.id, "ContainerResize" | "ExecResize") {
            return None;
        }
        let size = |key| request.query(key)?.parse::<u32>().ok().filter(|size| *size > 0);
        let (columns, rows) = (size("w")?, size("h")?);
        let window = window(server, instance, request)?;
        Some(Self { windows: Arc::clone(server.live().windows()), window, columns, rows })
    }

    /// Has it recorded.
    pub async fn record(&self) {
        self.windows.sized(&self.window, self.columns, self.rows).await;
    }
}

/// The window that a request is about. A container has one, by whatever name it is asked for.
pub(super) fn window(server: &ApiServer, instance: InstanceUid, request: &Request) -> Option<Window> {
    let called = request.object();
    match request.route.id {
        "ExecStart" | "ExecResize" => Some(Window::Exec(instance, called.to_owned())),
        "ContainerAttach" | "ContainerResize" => {
            let id = server.live().inventories().container(instance, called);
            Some(Window::Container(instance, id.unwrap_or_else(|| called.to_owned())))
        }
        _ => None,
    }
}
