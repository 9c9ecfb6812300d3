//! Which paths of a host a mount reaches, however they are written.

use std::collections::BTreeMap;

/// File systems that are not on the host.
const ELSEWHERE: [&str; 6] = ["tmpfs", "nfs", "nfs4", "cifs", "smb3", "ceph"];
/// What an overlay is made of.
const LAYERS: [&str; 3] = ["lowerdir", "upperdir", "workdir"];

/// The one way to write a path of a host: absolute, without empty, `.` and `..` segments, and without the links in `/proc` by which a
/// process' root and directory are reached. What other links there are only the host knows.
pub fn host_path(path: &str) -> String {
    let mut plain: Vec<&str> = Vec::new();
    // As the engine cleans it, before the kernel follows a link.
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let mut reached: Vec<&str> = Vec::new();
    for segment in plain {
        reached.push(segment);
        if is_link_to_anywhere(&reached) {
            reached.clear();
        }
    }
    format!("/{}", reached.join("/"))
}

/// True for links that lead to the root of the host or to nobody knows where.
fn is_link_to_anywhere(path: &[&str]) -> bool {
    matches!(
        path,
        ["proc", _, "root" | "cwd"]
            | ["proc", _, "task", _, "root" | "cwd"]
            | ["proc", _, "fd", _]
            | ["proc", _, "task", _, "fd", _]
            | ["dev", "fd", _]
    )
}

/// The paths of the host that a volume of the driver `local` shows, by its options.
pub(super) fn of_volume(options: &BTreeMap<String, String>) -> Vec<String> {
    let option = |wanted: &str| {
        let found = options.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    };
    let (device, kind) = (option("device"), option("type").to_ascii_lowercase());
    let flags: Vec<&str> = option("o").split(',').map(str::trim).collect();
    // For the kernel these count, and the type does not.
    let is_bind = flags.iter().any(|flag| matches!(flag.to_ascii_lowercase().as_str(), "bind" | "rbind"));
    let mut paths = Vec::new();
    if !device.is_empty() && (is_bind || !ELSEWHERE.contains(&kind.as_str())) {
        paths.push(host_path(device));
    }
    for (name, layers) in flags.iter().filter_map(|flag| flag.split_once('=')) {
        if LAYERS.contains(&name.to_ascii_lowercase().trim_end_matches('+')) {
            paths.extend(layers.split(':').filter(|layer| !layer.is_empty()).map(host_path));
        }
    }
    paths
}
