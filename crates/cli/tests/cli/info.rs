//! `maxsim info`.

use crate::{json, maxsim, stdout};

#[test]
fn json_says_what_is_there_and_what_is_not() {
    let info = json(["info", "--json", "--backend", "cpu", "--threads", "3", "--level", "generic"]);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["engine"]["backend"], "cpu");
    assert_eq!(info["engine"]["level"], "generic");
    assert_eq!(info["engine"]["threads"], 3);
    let levels = info["cpu_levels"].as_array().unwrap();
    assert_eq!(levels.last().unwrap(), "generic", "best first: {levels:?}");
    let backends: Vec<(&str, bool)> = info["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["name"].as_str().unwrap(), b["built_in"].as_bool().unwrap()))
        .collect();
    assert_eq!(backends[0], ("cpu", true));
    for missing in info["backends"].as_array().unwrap().iter().filter(|b| b["built_in"] == false) {
        assert_eq!(missing["missing"], "not in this build");
    }
    assert_eq!(info["encoder"]["dim"], 128);
}

#[test]
fn settings_of_the_environment_are_shown_and_used() {
    let output = maxsim(["info", "--json"])
        .env("MAXSIM_BACKEND", "cpu")
        .env("MAXSIM_THREADS", "2")
        .env("MAXSIM_CPU_LEVEL", "generic")
        .env("MAXSIM_CACHE_DIR", "some/where")
        .assert()
        .success();
    let info: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(info["environment"]["MAXSIM_THREADS"], "2");
    assert_eq!((&info["engine"]["threads"], &info["engine"]["level"]), (&2.into(), &"generic".into()));
    assert_eq!(info["cache_directory"], "some/where");
}

#[test]
fn adapters_are_listed_and_can_be_switched_off() {
    let info = json(["info", "--json", "--backend", "cpu"]);
    for adapter in info["adapters"].as_array().unwrap() {
        assert_eq!(adapter["tiers"].as_array().unwrap().last().unwrap(), "portable", "{adapter}");
    }
    let output = maxsim(["info", "--json"]).env("MAXSIM_DISABLE_GPU", "1").assert().success();
    let info: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(info["adapters"], serde_json::json!([]));
    assert_eq!(info["engine"]["backend"], "cpu");
    let output =
        maxsim(["info"]).env("MAXSIM_DISABLE_GPU", "1").env("MAXSIM_BACKEND", "wgpu").assert().code(4);
    assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("MAXSIM_DISABLE_GPU"));
}

#[test]
fn an_engine_that_cannot_be_made_is_said_after_everything_else() {
    let output = maxsim(["info"]).env("MAXSIM_BACKEND", "cuda").assert().code(4);
    let output = output.get_output();
    assert!(String::from_utf8_lossy(&output.stdout).contains("MAXSIM_BACKEND=cuda"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error[ERR_UNSUPPORTED]"));
}

#[test]
fn text_names_device_and_encoder() {
    let text = stdout(["info"]);
    for name in ["version", "backends", "device", "level", "threads", "encoder", "cache"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
    assert!(!text.contains('\x1b'), "no colour outside a terminal: {text}");
}
