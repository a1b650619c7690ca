//! Compiles `proto/` in pure Rust: no `protoc` is needed to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs, not when it is compiled: a target directory may outlive the checkout that filled it.
    let root = format!("{}/../../proto", std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed={root}");
    let files = protox::compile(["quorate/v1/service.proto"], [root])?;
    // The comments are for readers of the protos; rustdoc would run their indented parts as tests.
    tonic_prost_build::configure()
        .disable_comments(["."])
        .compile_fds(files)?;
    Ok(())
}
