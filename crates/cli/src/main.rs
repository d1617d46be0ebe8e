//! The `maxsim` command.

use std::process::ExitCode;

use clap::Parser;

mod alloc;
mod commands;
mod exit;
mod input;
mod matches;
mod model;
mod operand;
mod output;
mod setup;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    exit::report(commands::run(cli))
}
