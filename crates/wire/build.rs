//! Compiles `proto/` in pure Rust: no `protoc` is needed to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(["quorate/v1/service.proto"], [root])?;
    // The comments are for readers of the protos; rustdoc would run their indented parts as tests.
    tonic_prost_build::configure()
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
