//! The tree keeps its directions: imports point down and form no cycles, and the cores depend on
//! neither tower nor a runtime nor a clock.

mod graph;

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::Path,
};

use self::graph::{Import, Modules};

/// Imports that close a cycle within a folder: folder, importing module, imported module, reason.
const CYCLES: &[(&str, &str, &str, &str)] = &[
    ("client", "service", "builder", "`IdentityClient::builder` and `build` are a pair"),
    ("profile_layer", "future", "service", "a service and the future that it returns"),
    ("session", "future", "service", "a service and the future that it returns"),
    ("session", "id", "identity", "a request's id refers to the identity it is sent under"),
    ("session", "id", "session", "a request's id refers to its session"),
    ("session", "identity", "session", "an identity returns its session"),
    ("session", "renewal_backend", "session", "the trait renews a session, whose context has the backends"),
    ("session", "share", "session", "the trait shares a session, whose context has the implementation"),
    ("session", "events", "context", "a subscription counts itself in the context"),
    ("session", "context", "sessions", "a session reaches the registry that created it"),
];

/// All files below `folder`, with their texts, tests at their ends cut off.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../src").join(folder)];
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

#[test]
fn the_modules_of_a_folder_form_no_cycles() {
    let mut imports = Modules::read().imports();
    assert!(imports.len() > 100, "{imports:?}");
    for &(folder, from, to, _) in CYCLES {
        let import = (folder.to_owned(), from.to_owned(), to.to_owned());
        assert!(imports.remove(&import), "{folder}: {from} no longer imports {to}: remove the exception");
    }
    let mut cycles = Vec::new();
    while let Some(cycle) = shortest_cycle(&imports) {
        let modules: Vec<_> = cycle.iter().map(|(_, from, _)| from.as_str()).collect();
        let (folder, first, _) = &cycle[0];
        cycles.push(format!("{folder}: {} -> {first}", modules.join(" -> ")));
        let broken = cycle[0].clone();
        imports.remove(&broken);
    }
    assert!(cycles.is_empty(), "modules import each other:\n{}", cycles.join("\n"));
    for &(folder, from, to, _) in CYCLES {
        let import = (folder.to_owned(), from.to_owned(), to.to_owned());
        imports.insert(import.clone());
        let closes = shortest_cycle(&imports).is_some();
        assert!(closes, "{folder}: {from} -> {to} closes no cycle: remove the exception");
        imports.remove(&import);
    }
}

/// The imports of one shortest cycle, if there is a cycle.
fn shortest_cycle(imports: &BTreeSet<Import>) -> Option<Vec<&Import>> {
    imports.iter().filter_map(|first| cycle_through(first, imports)).min_by_key(Vec::len)
}

/// The imports of one shortest cycle that begins with this import, breadth first.
fn cycle_through<'a>(first: &'a Import, imports: &'a BTreeSet<Import>) -> Option<Vec<&'a Import>> {
    let mut seen = BTreeSet::new();
    let mut paths = VecDeque::from([vec![first]]);
    while let Some(path) = paths.pop_front() {
        let (folder, _, end) = path[path.len() - 1];
        if *end == first.1 {
            return Some(path);
        }
        for next in imports.iter().filter(|(within, from, _)| within == folder && from == end) {
            if seen.insert(&next.2) {
                paths.push_back([path.as_slice(), &[next]].concat());
            }
        }
    }
    None
}
