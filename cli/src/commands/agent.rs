//! `gantry agent install-command`: what to paste on a host.

use jiff::Timestamp;

use crate::args::{InstallArgs, Reach};
use crate::client::Controller;
use crate::commands::token;
use crate::output::failure::hinted;

/// Makes a token for one agent and prints two ways to use it.
pub(crate) async fn run(reach: &Reach, options: &InstallArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let url = options.controller.clone().unwrap_or_else(|| controller.agents_url.clone());
    check_name("namespace", &controller.namespace)?;
    if let Some(instance) = &options.instance {
        check_name("instance", instance)?;
    }
    let ca_hash = controller.pinned()?.to_owned();
    let token = token::create(&controller, &controller.namespace, options.ttl, 1).await?;
    if is_loopback(&url) {
        eprintln!(
            "warning: {url} is reached from this machine only; for another host say --controller https://…"
        );
    }
    print!(
        "{}",
        render(&Install {
            namespace: &controller.namespace,
            instance: options.instance.as_deref(),
            url: &url,
            ca_hash: &ca_hash,
            token: &token.text,
            expires: token.expires
        })
    );
    Ok(())
}

struct Install<'a> {
    namespace: &'a str,
    instance: Option<&'a str>,
    url: &'a str,
    ca_hash: &'a str,
    token: &'a str,
    expires: Timestamp,
}

/// Names go into a shell command, so only those the API would take are printed.
fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let is_plain =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    let has_ends = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_plain && has_ends && name.len() <= 253 {
        return Ok(());
    }
    Err(hinted(
        format!("`{name}` cannot be the name of a {what}"),
        "use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
    ))
}

fn is_loopback(url: &str) -> bool {
    ["https://127.", "https://localhost", "https://[::1]"].iter().any(|start| url.starts_with(start))
}

fn render(install: &Install<'_>) -> String {
    let Install { namespace, instance, url, ca_hash, token, expires } = install;
    let instance = instance.map(|name| format!(" --instance {name}")).unwrap_or_default();
    format!(
        r#"# Enrols one Docker host in namespace {namespace}. The join token can be used once, until {expires}:
#
#     {token}
#
# Paste one of the two on that host, as root, where gantry-agent is installed, and the token where it is asked for. It stands in
# no command, so that neither the shell's history nor the list of processes shows it.

# 1. In the foreground:
gantry-agent --controller {url} --token-file - --ca-hash {ca_hash} --namespace {namespace}{instance}

# 2. As a systemd service:
install -d -m 0700 /etc/gantry /var/lib/gantry-agent
cat > /etc/systemd/system/gantry-agent.service <<'END'
[Unit]
Description=Gantry agent
Wants=network-online.target
After=network-online.target docker.service

[Service]
EnvironmentFile=/etc/gantry/agent.env
ExecStart=/usr/local/bin/gantry-agent --controller {url} --ca-hash {ca_hash} --namespace {namespace}{instance}
Restart=always
RestartSec=5
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
StateDirectory=gantry-agent
StateDirectoryMode=0700

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
(umask 077 && rm -f /etc/gantry/agent.env && printf 'Join token: ' && read -r token && printf 'GANTRY_TOKEN=%s\n' "$token" > /etc/gantry/agent.env) && systemctl enable gantry-agent && systemctl restart gantry-agent
"#
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn what_is_pasted_names_the_controller_the_token_and_the_pin() {
        let text = render(&Install {
            namespace: "shops",
            instance: Some("nuc-03"),
            url: "https://gantry.example:7443",
            ca_hash: "sha256:0123",
            token: "aaaaaaaaaa.bbbb",
            expires: "2026-01-02T03:04:05Z".parse().expect("a time"),
        });

        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(!line.contains("aaaaaaaaaa"), "the token is in a command: {line}");
        }
        assert_snapshot!("install_command", text);
    }

    #[test]
    fn a_name_that_a_shell_would_read_is_refused() {
        assert!(check_name("instance", "nuc-03.shop").is_ok());
        for wrong in ["", "-a", "a-", "a b", "$(reboot)", "a;b", "Ada"] {
            assert!(check_name("instance", wrong).is_err(), "{wrong} was taken");
        }
    }
}
