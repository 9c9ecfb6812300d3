//! Commands, images, networks, volumes, passwords.

use super::container::{EndpointSettings, Healthcheck};
use super::{Map, Nothing, Set, Words, object};

object! {
    /// A password for a registry to try.
    Auth {
        "username" username: String,
        "password" password: String,
        "auth" auth: String,
        "email" email: String,
        "serveraddress" server_address: String,
        "identitytoken" identity_token: String,
        "registrytoken" registry_token: String,
    }
}

object! {
    /// A command in a container.
    ExecCreate {
        "Container" container: String,
        "User" user: String,
        "Privileged" privileged: bool,
        "Tty" tty: bool,
        "ConsoleSize" console_size: Vec<u32>,
        "AttachStdin" attach_stdin: bool,
        "AttachStderr" attach_stderr: bool,
        "AttachStdout" attach_stdout: bool,
        "Detach" detach: bool,
        "DetachKeys" detach_keys: String,
        "Env" env: Vec<String>,
        "WorkingDir" working_dir: String,
        "Cmd" cmd: Words,
    }
}

object! {
    /// How a command is started.
    ExecStart { "Detach" detach: bool, "Tty" tty: bool, "ConsoleSize" console_size: Vec<u32>, }
}

object! {
    /// What an image is made with.
    CommitConfig {
        "Hostname" hostname: String,
        "Domainname" domainname: String,
        "User" user: String,
        "AttachStdin" attach_stdin: bool,
        "AttachStdout" attach_stdout: bool,
        "AttachStderr" attach_stderr: bool,
        "ExposedPorts" exposed_ports: Set,
        "Tty" tty: bool,
        "OpenStdin" open_stdin: bool,
        "StdinOnce" stdin_once: bool,
        "Env" env: Vec<String>,
        "Cmd" cmd: Words,
        "Healthcheck" healthcheck: Healthcheck,
        "ArgsEscaped" args_escaped: bool,
        "Image" image: String,
        "Volumes" volumes: Set,
        "WorkingDir" working_dir: String,
        "Entrypoint" entrypoint: Words,
        "NetworkDisabled" network_disabled: bool,
        "MacAddress" mac_address: String,
        "OnBuild" on_build: Vec<String>,
        "Labels" labels: Map<String>,
        "StopSignal" stop_signal: String,
        "StopTimeout" stop_timeout: i64,
        "Shell" shell: Words,
    }
}

object! {
    /// A new network.
    NetworkCreate {
        "Name" name: String,
        "CheckDuplicate" check_duplicate: bool,
        "Driver" driver: String,
        "Scope" scope: String,
        "EnableIPv4" enable_ipv4: bool,
        "EnableIPv6" enable_ipv6: bool,
        "IPAM" ipam: Ipam,
        "Internal" internal: bool,
        "Attachable" attachable: bool,
        "Ingress" ingress: bool,
        "ConfigOnly" config_only: bool,
        "ConfigFrom" config_from: ConfigFrom,
        "Options" options: Map<String>,
        "Labels" labels: Map<String>,
    }
}

object! {
    /// Where its addresses come from.
    Ipam { "Driver" driver: String, "Options" options: Map<String>, "Config" config: Vec<IpamConfig>, }
}

object! {
    /// One range of them.
    IpamConfig {
        "Subnet" subnet: String,
        "IPRange" ip_range: String,
        "Gateway" gateway: String,
        "AuxiliaryAddresses" auxiliary_addresses: Map<String>,
    }
}

object! {
    /// Another network's settings.
    ConfigFrom { "Network" network: String, }
}

object! {
    /// A container into a network.
    NetworkConnect { "Container" container: String, "EndpointConfig" endpoint_config: EndpointSettings, }
}

object! {
    /// A container out of a network.
    NetworkDisconnect { "Container" container: String, "Force" force: bool, }
}

object! {
    /// A new volume. Those of a cluster are Swarm's.
    VolumeCreate {
        "Name" name: String,
        "Driver" driver: String,
        "DriverOpts" driver_opts: Map<String>,
        "Labels" labels: Map<String>,
        "ClusterVolumeSpec" cluster_volume_spec: Nothing,
    }
}
