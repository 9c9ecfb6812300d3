//! The engine's facts, as it tells them now.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::Ask;
use crate::apiserver::failure::Outcome;
use crate::apiserver::{ApiServer, answer};

/// As long as any call to an agent may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// With the names of Docker's own `/info` and `/version`.
pub(super) async fn info(server: &ApiServer, ask: &Ask) -> Outcome<Response> {
    let told = server.live().link()?.info(ask.instance.uid, PATIENCE).await;
    let info = told.map_err(|error| ask.instance.failed(error))?;
    let total = info.containers_running + info.containers_paused + info.containers_stopped;
    answer::json(
        StatusCode::OK,
        &json!({
            "ID": info.engine_id,
            "Name": info.host_name,
            "ServerVersion": info.engine_version,
            "ApiVersion": info.api_version,
            "OperatingSystem": info.operating_system,
            "OSType": info.os_type,
            "Architecture": info.architecture,
            "KernelVersion": info.kernel_version,
            "Driver": info.storage_driver,
            "CgroupVersion": info.cgroup_version,
            "NCPU": info.cpus,
            "MemTotal": info.memory_bytes,
            "Containers": total,
            "ContainersRunning": info.containers_running,
            "ContainersPaused": info.containers_paused,
            "ContainersStopped": info.containers_stopped,
            "Images": info.images,
        }),
    )
}
