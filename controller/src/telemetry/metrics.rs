//! Each metric once. Names that start with `docker_` are a published contract; everything else is `gantry_…`.

use prometheus::{
    Encoder as _, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder, histogram_opts, opts,
};

/// Every metric of the controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// `docker_operations_total{action,status}`: operations that ended.
    pub operations: IntCounterVec,
    /// `docker_operations_duration_seconds{action}`: from creation to end.
    pub operation_duration: HistogramVec,
    /// `docker_health_check_duration_seconds`.
    pub health_check_duration: Histogram,
    /// `docker_grpc_connections_total`: agent sessions opened.
    pub agent_connections: IntCounter,
    /// `docker_instance_health_status{namespace,instance,status}`: 1 for the present status, 0 for the others.
    pub instance_health: IntGaugeVec,
    /// `gantry_request_duration_seconds{verb,resource,code}`.
    pub request_duration: HistogramVec,
    /// `gantry_watchers{resource}`: open watches.
    pub watchers: IntGaugeVec,
    /// `gantry_live_streams{kind}`: logs, figures and terminals of containers that are open.
    pub live_streams: IntGaugeVec,
    /// `gantry_watch_cache_lag_seconds`: from commit to cache.
    pub watch_cache_lag: Histogram,
    /// `gantry_watch_cache_version`: newest version in the cache.
    pub watch_cache_version: IntGauge,
    /// `gantry_group_commit_size`: writes in one commit.
    pub commit_size: Histogram,
    /// `gantry_group_commit_duration_seconds`.
    pub commit_duration: Histogram,
    /// `gantry_audit_dropped_total{reason}`: events of requests without a change that were not recorded; with the
    /// name of a copy, events of any kind that it lacks.
    pub audit_dropped: IntCounterVec,
    /// `gantry_docker_endpoint_refusals_total{why}`: requests that the grammar of the Docker Engine API does not know.
    pub docker_refusals: IntCounterVec,
    /// `gantry_reconcile_duration_seconds{kind,outcome}`; outcome is ok or error.
    pub reconcile_duration: HistogramVec,
    /// `gantry_reconcile_queue_depth{kind}`: passes under way.
    pub reconcile_queue: IntGaugeVec,
    /// `gantry_reconcile_retries_total{kind}`.
    pub reconcile_retries: IntCounterVec,
    /// `gantry_agent_sessions`: open now.
    pub agent_sessions: IntGauge,
    /// `gantry_agent_disconnects_total{reason}`.
    pub agent_disconnects: IntCounterVec,
    /// `gantry_agent_refusals_total{reason}`: agents turned away.
    pub agent_refusals: IntCounterVec,
    /// `gantry_agent_misbehaviours_total`: agents did what none of ours does.
    pub agent_misbehaviours: IntCounter,
    /// `gantry_store_rewound_total`: an agent had seen a newer controller than the store remembers.
    pub store_rewound: IntCounter,
    /// `gantry_orphaned_results_total`: an agent held a result whose Operation does not exist any more.
    pub orphaned_results: IntCounter,
    /// `gantry_digest_conflicts_total`: an agent held the same operation with other contents; always a bug.
    pub digest_conflicts: IntCounter,
    /// `gantry_authentication_issuer_fetches_total{issuer,outcome}`; outcome is ok or error, the issuers are those configured.
    pub issuer_fetches: IntCounterVec,
    /// `gantry_authentication_issuer_keys_timestamp_seconds{issuer}`: when its keys were last fetched.
    pub issuer_keys: IntGaugeVec,
    /// `gantry_authentication_refusals_total{pace}`: wrong credentials; pace is slowed for those of a source that had shown many.
    pub credentials_refused: IntCounterVec,
}

const FAST: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const LONG: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

impl Metrics {
    /// Registers everything, with the process's own figures and the build.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        macro_rules! add {
            ($metric:expr) => {{
                let metric = $metric?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let build = add!(IntGaugeVec::new(
            opts!("gantry_build_info", "1, labelled with the running build."),
            &["version", "component"]
        ));
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "controller"]).set(1);
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            operations: add!(IntCounterVec::new(
                opts!("docker_operations_total", "Operations that ended."),
                &["action", "status"]
            )),
            operation_duration: add!(HistogramVec::new(
                histogram_opts!(
                    "docker_operations_duration_seconds",
                    "Time from an Operation's creation to its end.",
                    LONG.to_vec()
                ),
                &["action"]
            )),
            health_check_duration: add!(Histogram::with_opts(histogram_opts!(
                "docker_health_check_duration_seconds",
                "Time a health check of one instance took.",
                FAST.to_vec()
            ))),
            agent_connections: add!(IntCounter::with_opts(opts!(
                "docker_grpc_connections_total",
                "Agent sessions opened since start."
            ))),
            instance_health: add!(IntGaugeVec::new(
                opts!("docker_instance_health_status", "1 for the present status of an instance, else 0."),
                &["namespace", "instance", "status"]
            )),
            request_duration: add!(HistogramVec::new(
                histogram_opts!(
                    "gantry_request_duration_seconds",
                    "Time to answer an API request; watches are not counted.",
                    FAST.to_vec()
                ),
                &["verb", "resource", "code"]
            )),
            watchers: add!(IntGaugeVec::new(opts!("gantry_watchers", "Open watches."), &["resource"])),
            live_streams: add!(IntGaugeVec::new(
                opts!("gantry_live_streams", "Open logs, figures and terminals of containers."),
                &["kind"]
            )),
            watch_cache_lag: add!(Histogram::with_opts(histogram_opts!(
                "gantry_watch_cache_lag_seconds",
                "Time from commit to the watch cache.",
                FAST.to_vec()
            ))),
            watch_cache_version: add!(IntGauge::with_opts(opts!(
                "gantry_watch_cache_version",
                "Newest version in the watch cache."
            ))),
            commit_size: add!(Histogram::with_opts(histogram_opts!(
                "gantry_group_commit_size",
                "Writes in one commit.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
            ))),
            commit_duration: add!(Histogram::with_opts(histogram_opts!(
                "gantry_group_commit_duration_seconds",
                "Time one group commit took.",
                FAST.to_vec()
            ))),
            audit_dropped: add!(IntCounterVec::new(
                opts!(
                    "gantry_audit_dropped_total",
                    "Events of refused and failed requests that were not recorded, as those of changes always are; reasons log, webhook and otlp: events of any kind that are missing in that copy."
                ),
                &["reason"]
            )),
            docker_refusals: add!(IntCounterVec::new(
                opts!(
                    "gantry_docker_endpoint_refusals_total",
                    "Requests to Docker endpoints that were not understood, and not forwarded."
                ),
                &["why"]
            )),
            reconcile_duration: add!(HistogramVec::new(
                histogram_opts!(
                    "gantry_reconcile_duration_seconds",
                    "Time of one reconcile pass.",
                    FAST.to_vec()
                ),
                &["kind", "outcome"]
            )),
            reconcile_queue: add!(IntGaugeVec::new(
                opts!("gantry_reconcile_queue_depth", "Reconcile passes under way."),
                &["kind"]
            )),
            reconcile_retries: add!(IntCounterVec::new(
                opts!("gantry_reconcile_retries_total", "Reconcile passes that will be retried."),
                &["kind"]
            )),
            agent_sessions: add!(IntGauge::with_opts(opts!(
                "gantry_agent_sessions",
                "Agent sessions open now."
            ))),
            agent_disconnects: add!(IntCounterVec::new(
                opts!("gantry_agent_disconnects_total", "Agent sessions that ended."),
                &["reason"]
            )),
            agent_refusals: add!(IntCounterVec::new(
                opts!("gantry_agent_refusals_total", "Agents turned away."),
                &["reason"]
            )),
            agent_misbehaviours: add!(IntCounter::with_opts(opts!(
                "gantry_agent_misbehaviours_total",
                "Agents did what none of ours does."
            ))),
            store_rewound: add!(IntCounter::with_opts(opts!(
                "gantry_store_rewound_total",
                "Agents that had seen a newer controller than the store remembers."
            ))),
            orphaned_results: add!(IntCounter::with_opts(opts!(
                "gantry_orphaned_results_total",
                "Results of Operations that do not exist any more."
            ))),
            digest_conflicts: add!(IntCounter::with_opts(opts!(
                "gantry_digest_conflicts_total",
                "Operations an agent held with other contents; always a bug."
            ))),
            issuer_fetches: add!(IntCounterVec::new(
                opts!(
                    "gantry_authentication_issuer_fetches_total",
                    "Times the keys of a configured issuer were asked for."
                ),
                &["issuer", "outcome"]
            )),
            issuer_keys: add!(IntGaugeVec::new(
                opts!(
                    "gantry_authentication_issuer_keys_timestamp_seconds",
                    "When the keys of a configured issuer were last fetched, in seconds since 1970; 0 before."
                ),
                &["issuer"]
            )),
            credentials_refused: add!(IntCounterVec::new(
                opts!(
                    "gantry_authentication_refusals_total",
                    "Requests with credentials that prove nothing."
                ),
                &["pace"]
            )),
            registry,
        })
    }

    /// The text format of Prometheus.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
