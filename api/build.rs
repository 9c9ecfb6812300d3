//! Compiles the agent's protocol with protox, so that nobody needs `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/gantry/agent/v1/session.proto",
        "proto/gantry/agent/v1/docker.proto",
        "proto/gantry/agent/v1/inventory.proto",
        "proto/gantry/agent/v1/engine.proto",
        "proto/gantry/agent/v1/operation.proto",
        "proto/gantry/agent/v1/stream.proto",
    ];
    let peer = ["proto/gantry/peer/v1/peer.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("gantry.agent.v1.binpb");
    std::fs::write(&out, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .build_transport(false)
        .codec_path("crate::codec::SmallCodec")
        // Written by hand, so that no log can show what is in it.
        .skip_debug([
            "gantry.agent.v1.RegistryAuth",
            "gantry.agent.v1.EngineCall",
            "gantry.agent.v1.EnginePair",
        ])
        .compile_fds(descriptors)?;
    // Spoken by controllers among themselves only, so it is not part of what is written to `schemas/`.
    let descriptors = protox::compile(peer, ["proto"])?;
    let peers = PathBuf::from(std::env::var("OUT_DIR")?).join("peer");
    std::fs::create_dir_all(&peers)?;
    tonic_prost_build::configure()
        .out_dir(peers)
        .bytes(".")
        .build_transport(false)
        .codec_path("crate::codec::SmallCodec")
        .extern_path(".gantry.agent.v1", "crate::agent_v1")
        .compile_fds(descriptors)?;
    Ok(())
}
