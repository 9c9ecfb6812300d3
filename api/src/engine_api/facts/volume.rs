//! What of the host a volume of the engine's own driver shows, by the options that it is made with: those of mount(8), which the engine
//! hands to the kernel.

use crate::engine_api::body::Map;

/// File systems of other machines, and of memory.
const ELSEWHERE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "tmpfs", "ramfs"];
/// File systems on a disk, which is named.
const DISKS: [&str; 14] = [
    "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "ntfs", "ntfs3", "squashfs", "udf",
    "vfat", "xfs",
];
/// What an overlay is made of.
const LAYERS: [&str; 4] = ["datadir", "lowerdir", "upperdir", "workdir"];

/// Paths of the host. `/` also where nobody can say what is shown: the engine mounts file systems of every kind, those in which the kernel
/// shows itself among them, as `proc`.
pub(super) fn shown(options: &Map<String>) -> Vec<String> {
    let option = |wanted: &str| {
        let other =
            || options.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
        options.get(wanted).or_else(other).map(String::as_str).unwrap_or_default()
    };
    let (kind, device, flags) = (option("type").to_ascii_lowercase(), option("device").trim(), option("o"));
    let has = |wanted: &str| flags.split(',').any(|flag| flag.trim().eq_ignore_ascii_case(wanted));
    // The kernel looks at these before the type.
    if has("bind") || has("rbind") || matches!(kind.as_str(), "" | "none") {
        return if device.is_empty() { Vec::new() } else { vec![path(device)] };
    }
    if ELSEWHERE.contains(&kind.as_str()) {
        return Vec::new();
    }
    let named = flags.split(',').filter_map(|flag| flag.split_once('='));
    match kind.as_str() {
        // What a backslash hides, only the kernel knows.
        "overlay" if !flags.contains('\\') => named
            .filter(|(name, _)| {
                LAYERS.contains(&name.trim().trim_end_matches('+').to_ascii_lowercase().as_str())
            })
            .flat_map(|(_, layers)| layers.split(':').filter(|layer| !layer.is_empty()).map(path))
            .collect(),
        disk if DISKS.contains(&disk) => {
            // One may be on several disks.
            let more = named.filter(|(name, _)| name.trim() == "device").map(|(_, device)| path(device));
            std::iter::once(path(device)).chain(more).collect()
        }
        _ => vec!["/".to_owned()],
    }
}

/// The kernel begins where the engine stands, which is at the root.
fn path(text: &str) -> String {
    super::plain(&format!("/{text}"))
}
