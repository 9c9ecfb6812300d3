//! Compiles the agent's protocol with protox, so that nobody needs `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/gantry/agent/v1/session.proto",
        "proto/gantry/agent/v1/docker.proto",
        "proto/gantry/agent/v1/operation.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("gantry.agent.v1.binpb");
    std::fs::write(&out, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
