//! Declares the `loom` configuration flag, so that the compiler can still find misspelt ones.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(loom)");
}
