//! Which paths of a host a mount reaches, however they are written.

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
