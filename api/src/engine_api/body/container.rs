//! Containers: what `create` and `update` send.

use serde::{Deserialize, Serialize};

use super::{Map, Nothing, Set, Words, object};

/// [`object!`] with the limits that a new container and an update have in common.
macro_rules! with_limits {
    ($(#[$doc:meta])* $name:ident { $($key:literal $field:ident: $kind:ty,)* }) => {
        object! {
            $(#[$doc])*
            $name {
                $($key $field: $kind,)*
                "CpuShares" cpu_shares: i64,
                "Memory" memory: i64,
                "NanoCpus" nano_cpus: i64,
                "CgroupParent" cgroup_parent: String,
                "BlkioWeight" blkio_weight: u16,
                "BlkioWeightDevice" blkio_weight_device: Vec<WeightDevice>,
                "BlkioDeviceReadBps" blkio_device_read_bps: Vec<ThrottleDevice>,
                "BlkioDeviceWriteBps" blkio_device_write_bps: Vec<ThrottleDevice>,
                "BlkioDeviceReadIOps" blkio_device_read_iops: Vec<ThrottleDevice>,
                "BlkioDeviceWriteIOps" blkio_device_write_iops: Vec<ThrottleDevice>,
                "CpuPeriod" cpu_period: i64,
                "CpuQuota" cpu_quota: i64,
                "CpuRealtimePeriod" cpu_realtime_period: i64,
                "CpuRealtimeRuntime" cpu_realtime_runtime: i64,
                "CpusetCpus" cpuset_cpus: String,
                "CpusetMems" cpuset_mems: String,
                "Devices" devices: Vec<Device>,
                "DeviceCgroupRules" device_cgroup_rules: Vec<String>,
                "DeviceRequests" device_requests: Vec<DeviceRequest>,
                "KernelMemory" kernel_memory: i64,
                "KernelMemoryTCP" kernel_memory_tcp: i64,
                "MemoryReservation" memory_reservation: i64,
                "MemorySwap" memory_swap: i64,
                "MemorySwappiness" memory_swappiness: i64,
                "OomKillDisable" oom_kill_disable: bool,
                "PidsLimit" pids_limit: i64,
                "Ulimits" ulimits: Vec<Ulimit>,
                "CpuCount" cpu_count: i64,
                "CpuPercent" cpu_percent: i64,
                "IOMaximumIOps" io_maximum_iops: u64,
                "IOMaximumBandwidth" io_maximum_bandwidth: u64,
                "RestartPolicy" restart_policy: RestartPolicy,
            }
        }
    };
}

object! {
    /// A new container.
    ContainerCreate {
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
        "HostConfig" host_config: HostConfig,
        "NetworkingConfig" networking_config: NetworkingConfig,
        "Runtime" runtime: Nothing,
    }
}

with_limits! {
    /// Other limits for a container.
    ContainerUpdate {}
}

with_limits! {
    /// What a container has of its host.
    HostConfig {
        "Binds" binds: Vec<String>,
        "ContainerIDFile" container_id_file: String,
        "LogConfig" log_config: LogConfig,
        "NetworkMode" network_mode: String,
        "PortBindings" port_bindings: Map<Option<Vec<PortBinding>>>,
        "AutoRemove" auto_remove: bool,
        "VolumeDriver" volume_driver: String,
        "VolumesFrom" volumes_from: Vec<String>,
        "ConsoleSize" console_size: Vec<u32>,
        "Annotations" annotations: Map<String>,
        "CapAdd" cap_add: Words,
        "CapDrop" cap_drop: Words,
        "CgroupnsMode" cgroupns_mode: String,
        "Dns" dns: Vec<String>,
        "DnsOptions" dns_options: Vec<String>,
        "DnsSearch" dns_search: Vec<String>,
        "ExtraHosts" extra_hosts: Vec<String>,
        "GroupAdd" group_add: Vec<String>,
        "IpcMode" ipc_mode: String,
        "Cgroup" cgroup: String,
        "Links" links: Vec<String>,
        "OomScoreAdj" oom_score_adj: i64,
        "PidMode" pid_mode: String,
        "Privileged" privileged: bool,
        "PublishAllPorts" publish_all_ports: bool,
        "ReadonlyRootfs" readonly_rootfs: bool,
        "SecurityOpt" security_opt: Vec<String>,
        "StorageOpt" storage_opt: Map<String>,
        "Tmpfs" tmpfs: Map<String>,
        "UTSMode" uts_mode: String,
        "UsernsMode" userns_mode: String,
        "ShmSize" shm_size: i64,
        "Sysctls" sysctls: Map<String>,
        "Runtime" runtime: String,
        "Isolation" isolation: String,
        "Mounts" mounts: Vec<Mount>,
        "MaskedPaths" masked_paths: Vec<String>,
        "ReadonlyPaths" readonly_paths: Vec<String>,
        "Init" init: bool,
    }
}

object! {
    /// How the engine asks a container whether it is well.
    Healthcheck {
        "Test" test: Vec<String>,
        "Interval" interval: i64,
        "Timeout" timeout: i64,
        "StartPeriod" start_period: i64,
        "StartInterval" start_interval: i64,
        "Retries" retries: i64,
    }
}

object! {
    /// Where logs go.
    LogConfig { "Type" kind: String, "Config" config: Map<String>, }
}

object! {
    /// A port of the host.
    PortBinding { "HostIp" host_ip: String, "HostPort" host_port: String, }
}

object! {
    /// When the engine starts a container again.
    RestartPolicy { "Name" name: String, "MaximumRetryCount" maximum_retry_count: i64, }
}

object! {
    /// A limit of a device.
    ThrottleDevice { "Path" path: String, "Rate" rate: u64, }
}

object! {
    /// A share of a device.
    WeightDevice { "Path" path: String, "Weight" weight: u16, }
}

object! {
    /// A limit of processes.
    Ulimit { "Name" name: String, "Hard" hard: i64, "Soft" soft: i64, }
}

object! {
    /// A device of the host.
    Device {
        "PathOnHost" path_on_host: String,
        "PathInContainer" path_in_container: String,
        "CgroupPermissions" cgroup_permissions: String,
    }
}

object! {
    /// Devices that a driver picks, as GPUs.
    DeviceRequest {
        "Driver" driver: String,
        "Count" count: i64,
        "DeviceIDs" device_ids: Vec<String>,
        "Capabilities" capabilities: Vec<Vec<String>>,
        "Options" options: Map<String>,
    }
}

object! {
    /// A mount in the newer way.
    Mount {
        "Type" kind: String,
        "Source" source: String,
        "Target" target: String,
        "ReadOnly" read_only: bool,
        "Consistency" consistency: String,
        "BindOptions" bind_options: BindOptions,
        "VolumeOptions" volume_options: VolumeOptions,
        "ImageOptions" image_options: ImageOptions,
        "TmpfsOptions" tmpfs_options: TmpfsOptions,
    }
}

object! {
    /// Of a mount of the host's files.
    BindOptions {
        "Propagation" propagation: String,
        "NonRecursive" non_recursive: bool,
        "CreateMountpoint" create_mountpoint: bool,
        "ReadOnlyNonRecursive" read_only_non_recursive: bool,
        "ReadOnlyForceRecursive" read_only_force_recursive: bool,
    }
}

object! {
    /// Of a mount of a volume.
    VolumeOptions {
        "NoCopy" no_copy: bool,
        "Labels" labels: Map<String>,
        "Subpath" subpath: String,
        "DriverConfig" driver_config: DriverConfig,
    }
}

object! {
    /// Which driver makes a volume, and from what.
    DriverConfig { "Name" name: String, "Options" options: Map<String>, }
}

object! {
    /// Of a mount of an image.
    ImageOptions { "Subpath" subpath: String, }
}

object! {
    /// Of a mount of memory.
    TmpfsOptions { "SizeBytes" size_bytes: i64, "Mode" mode: u32, "Options" options: Vec<Vec<String>>, }
}

/// Networks of a new container. docker-py names one beside them, `{"private": null}`, which engines do not read and are not sent.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkingConfig {
    /// `EndpointsConfig`.
    #[serde(rename = "EndpointsConfig", default, skip_serializing_if = "Option::is_none")]
    pub endpoints_config: Option<Map<Option<EndpointSettings>>>,
    #[expect(clippy::zero_sized_map_values, reason = "null is all that may be there")]
    #[serde(flatten, skip_serializing)]
    _named: Map<Option<Nothing>>,
}

object! {
    /// How a container is in a network.
    EndpointSettings {
        "IPAMConfig" ipam_config: EndpointAddresses,
        "Links" links: Vec<String>,
        "Aliases" aliases: Vec<String>,
        "MacAddress" mac_address: String,
        "DriverOpts" driver_opts: Map<String>,
        "GwPriority" gw_priority: i64,
        "NetworkID" network_id: String,
        "EndpointID" endpoint_id: String,
        "Gateway" gateway: String,
        "IPAddress" ip_address: String,
        "IPPrefixLen" ip_prefix_len: i64,
        "IPv6Gateway" ipv6_gateway: String,
        "GlobalIPv6Address" global_ipv6_address: String,
        "GlobalIPv6PrefixLen" global_ipv6_prefix_len: i64,
        "DNSNames" dns_names: Vec<String>,
    }
}

object! {
    /// Its addresses there.
    EndpointAddresses {
        "IPv4Address" ipv4_address: String,
        "IPv6Address" ipv6_address: String,
        "LinkLocalIPs" link_local_ips: Vec<String>,
    }
}
