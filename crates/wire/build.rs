//! Compiles `proto/` in pure Rust: no `protoc` is needed to build.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it is compiled: a target directory may outlive the checkout that filled it.
    let root = format!("{}/../../proto", std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(["quorate/v1/service.proto"], [&root])?;
    // The comments are for readers of the protos; rustdoc would run their indented parts as tests.
    tonic_prost_build::configure()
        .disable_comments(["."])
        .compile_fds(files)?;
    etcd(&root)
}

/// etcd's messages and services, and what describes them, for the JSON gateway.
fn etcd(root: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler
        .include_imports(true)
        .open_files(["etcd/v3election.proto", "etcd/v3lock.proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("etcd.fds"),
        compiler.encode_file_descriptor_set(),
    )?;
    // Shared bytes: a request's keys and values are slices of the frame, an answer's are those of the state.
    tonic_prost_build::configure()
        .disable_comments(["."])
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
