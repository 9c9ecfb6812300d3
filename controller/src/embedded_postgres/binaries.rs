//! Which installed Postgres is run: a cluster is only ever opened by the major version that made it.

use std::path::{Path, PathBuf};

use super::{Account, EmbeddedPostgresError, command, io_error};

/// Where distributions put each version: a directory, and what stands before the number in the names within.
const PLACES: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// The directory with `postgres` and `initdb` for this cluster: of its version if it exists, else the first of `$PG_BINDIR`, the
/// distributions' places newest first, PATH. `None` if nothing at all is installed.
pub(super) async fn find(
    data: &Path,
    account: Option<Account>,
) -> Result<Option<PathBuf>, EmbeddedPostgresError> {
    choose(candidates(), version_of(data)?.as_deref(), account).await
}

fn candidates() -> Vec<PathBuf> {
    let mut versioned: Vec<(u32, PathBuf)> = PLACES
        .iter()
        .filter_map(|(root, prefix)| Some((std::fs::read_dir(root).ok()?, prefix)))
        .flat_map(|(entries, prefix)| entries.flatten().map(move |entry| (entry, prefix)))
        .filter_map(|(entry, prefix)| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versioned.sort_by(|(left, _), (right, _)| right.cmp(left));
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let from_environment = std::env::var_os("PG_BINDIR").map(PathBuf::from);
    from_environment
        .into_iter()
        .chain(versioned.into_iter().map(|(_, path)| path))
        .chain(on_path)
        .filter(|dir| dir.is_absolute() && dir.join("postgres").is_file() && dir.join("initdb").is_file())
        .collect()
}

async fn choose(
    candidates: Vec<PathBuf>,
    wanted: Option<&str>,
    account: Option<Account>,
) -> Result<Option<PathBuf>, EmbeddedPostgresError> {
    let Some(wanted) = wanted else { return Ok(candidates.into_iter().next()) };
    let mut installed = Vec::new();
    for bin in candidates {
        match major_of(&bin, account).await {
            Some(major) if major == wanted => return Ok(Some(bin)),
            Some(major) if !installed.contains(&major) => installed.push(major),
            _ => {}
        }
    }
    if installed.is_empty() {
        return Ok(None);
    }
    Err(EmbeddedPostgresError::OtherVersion { wanted: wanted.to_owned(), installed: installed.join(" and ") })
}

/// The major version that made the cluster; `None` if there is no cluster yet.
pub(super) fn version_of(data: &Path) -> Result<Option<String>, EmbeddedPostgresError> {
    let path = data.join("PG_VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error(&format!("cannot read {}", path.display()), cause)),
    }
}

/// `15` of `postgres (PostgreSQL) 15.3 (Debian 15.3-1)`.
async fn major_of(bin: &Path, account: Option<Account>) -> Option<String> {
    let output = command(bin, "postgres", account).arg("--version").kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (_, version) = text.split_once(") ")?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Programs that only know their version.
    fn install(root: &Path, version: &str) -> PathBuf {
        let bin = root.join(version);
        std::fs::create_dir(&bin).expect("made");
        let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}.3 (Somewhere 1)'\n");
        std::fs::write(bin.join("postgres"), script).expect("written");
        std::fs::set_permissions(bin.join("postgres"), std::fs::Permissions::from_mode(0o755)).expect("set");
        bin
    }

    #[tokio::test]
    async fn a_cluster_is_opened_by_its_own_version_and_by_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let (newer, older) = (install(dir.path(), "17"), install(dir.path(), "15"));
        let both = vec![newer.clone(), older.clone()];

        assert_eq!(choose(both.clone(), None, None).await.expect("found"), Some(newer));
        assert_eq!(choose(both.clone(), Some("15"), None).await.expect("found"), Some(older));
        let error = choose(both, Some("14"), None).await.expect_err("refused").to_string();

        assert!(error.contains("PostgreSQL 14") && error.contains("17 and 15"), "{error}");
        assert_eq!(choose(Vec::new(), Some("14"), None).await.expect("nothing is there"), None);
    }
}
