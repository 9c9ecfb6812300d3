//! Each metric once.

use prometheus::{
    Encoder as _, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder, opts,
    process_collector::ProcessCollector,
};

/// Every metric of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// `gantry_agent_reconnects_total`.
    pub reconnects: IntCounter,
    /// `gantry_agent_connected`: 1 while a session is ready.
    pub connected: IntGauge,
    /// `gantry_agent_operations_total{action,outcome}`.
    pub operations: IntCounterVec,
    /// `gantry_agent_journal_sequence`.
    pub journal_sequence: IntGauge,
    /// `gantry_agent_engine_reachable`: 1 if the engine answered when it was last asked for its facts.
    pub engine_reachable: IntGauge,
}

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
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "agent"]).set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            reconnects: add!(IntCounter::with_opts(opts!(
                "gantry_agent_reconnects_total",
                "Attempts to connect again."
            ))),
            connected: add!(IntGauge::with_opts(opts!(
                "gantry_agent_connected",
                "1 while a session with the controller is ready."
            ))),
            operations: add!(IntCounterVec::new(
                opts!("gantry_agent_operations_total", "Operations that ended on this host."),
                &["action", "outcome"]
            )),
            journal_sequence: add!(IntGauge::with_opts(opts!(
                "gantry_agent_journal_sequence",
                "Sequence of the newest durable journal record."
            ))),
            engine_reachable: add!(IntGauge::with_opts(opts!(
                "gantry_agent_engine_reachable",
                "1 if the Docker Engine answered when it was last asked for its facts."
            ))),
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
