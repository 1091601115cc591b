//! The `aviary` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Only fails if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    aviary::main(std::env::args_os())
}
