//! Links the check of the processor into the programs, where they are built for x86-64-v3.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/processor.c");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64")
        && features.split(',').any(|feature| feature == "avx2")
    {
        // Nothing refers to it, so the linker is told to take it whole.
        cc::Build::new()
            .file("src/processor.c")
            .flag("-march=x86-64")
            .link_lib_modifier("+whole-archive")
            .compile("processor");
    }
}
