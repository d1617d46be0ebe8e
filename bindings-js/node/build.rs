//! Node-API set-up, and what a release carries.

fn main() {
    napi_build::setup();
    // The workspace keeps line tables in release builds, for profiles; in a published addon they are two thirds of it.
    if std::env::var("PROFILE").as_deref() == Ok("release")
        && std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
    {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-debug");
    }
}
