//! `--help` of every command.

use crate::{maxsim, stdout};

const COMMANDS: [&str; 6] = ["demo", "search", "score", "info", "bench", "selftest"];

#[test]
fn the_command_lists_its_commands_and_exit_codes() {
    let text = stdout(["--help"]);
    for command in COMMANDS {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command} in {text}");
    }
    assert!(
        text.contains("Exit codes: 0 ok, 1 a check failed, 2 usage, 3 input, 4 backend, 5 I/O"),
        "{text}"
    );
    assert!(stdout(["--version"]).starts_with("maxsim "));
}

#[test]
fn every_command_has_examples_of_itself_and_engine_options() {
    for command in COMMANDS {
        let text = stdout([command, "--help"]);
        let (_, examples) = text.split_once("Examples:").expect("examples");
        assert!(examples.trim_start().contains(&format!("maxsim {command}")), "{text}");
        for option in ["--backend", "--threads", "--level"] {
            assert!(text.contains(option), "{command} {option}");
        }
    }
    assert!(stdout(["bench", "compare", "--help"]).contains("maxsim bench compare old.json new.json"));
}

#[test]
fn every_example_parses() {
    // Files of the examples do not exist: anything but a usage error will do.
    for command in COMMANDS {
        let text = stdout([command, "--help"]);
        let (_, examples) = text.split_once("Examples:").expect("examples");
        let examples: Vec<&str> =
            examples.lines().map(str::trim).filter(|line| line.starts_with("maxsim ")).collect();
        assert!(!examples.is_empty(), "{command}");
        for example in examples {
            // Quoted arguments come whole.
            let args = example.split('"').enumerate().flat_map(|(i, part)| {
                if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
            });
            // Small sizes: what is tested is the command line.
            let args: Vec<&str> = args.skip(1).chain(["--help"]).collect();
            maxsim(&args).assert().success();
        }
    }
}
