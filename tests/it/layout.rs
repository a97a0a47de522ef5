//! The tree keeps its directions: imports point down, and the cores know neither tower nor a runtime nor a clock.

use std::{fs, path::Path};

/// All files below `folder`, with their texts, tests at their ends cut off.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<_> = text
                    .lines()
                    .take_while(|line| !line.starts_with("#[cfg(test)]"))
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .collect();
                found.push((path.display().to_string(), code.join("\n")));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[track_caller]
fn never_names(folder: &str, names: &[&str]) {
    for (path, text) in sources(folder) {
        for name in names {
            assert!(!text.contains(name), "{path} names {name}");
        }
    }
}

#[test]
fn imports_point_down() {
    let above_session =
        ["crate::renewal", "crate::redirect", "crate::profile_layer", "crate::pool", "crate::shared"];
    never_names("session", &above_session);
    never_names(
        "pool",
        &["crate::renewal", "crate::redirect", "crate::profile_layer", "crate::client", "crate::shared"],
    );
    never_names("renewal", &["crate::pool", "crate::shared"]);
    never_names(
        "shared",
        &["crate::renewal", "crate::redirect", "crate::profile_layer", "crate::client", "crate::pool"],
    );
    let above_gate = [
        "crate::session",
        "crate::cookies",
        "crate::profile",
        "crate::renewal",
        "crate::redirect",
        "crate::pool",
    ];
    never_names("gate", &above_gate);
    never_names(
        "cookies",
        &["crate::session", "crate::gate", "crate::profile", "crate::renewal", "crate::redirect"],
    );
    never_names(
        "profile",
        &["crate::session", "crate::gate", "crate::cookies", "crate::renewal", "crate::redirect"],
    );
}

/// Guides are words: nothing rests on them.
#[test]
fn nothing_imports_the_guides() {
    never_names("", &["crate::guides", "super::guides"]);
}

#[test]
fn the_gate_knows_no_http() {
    never_names("gate", &["http::", "http_body", "tower_service", "tower_layer"]);
}

#[test]
fn the_cores_know_no_tower_no_runtime_and_no_clock() {
    for folder in ["cookies", "profile"] {
        never_names(folder, &["tower", "tokio", "Instant::now"]);
    }
    for folder in ["gate", "pool"] {
        let (_, core) = sources(folder).into_iter().find(|(path, _)| path.ends_with("state.rs")).unwrap();
        for name in ["tokio", "tower", "Instant", "Mutex", "Arc<"] {
            assert!(!core.contains(name), "the core of {folder} names {name}");
        }
    }
}
