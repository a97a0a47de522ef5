//! The modules of the library and the imports between them, read from the source files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// The names of a module and its ancestors, from the root of the crate.
type ModulePath = Vec<String>;

/// The modules of the library, without tests.
#[derive(Default)]
pub(super) struct Modules {
    /// What each module brings into scope from other modules of the crate: name and full path.
    names: BTreeMap<ModulePath, HashMap<String, Vec<String>>>,
    /// The full paths that each module mentions.
    mentions: BTreeMap<ModulePath, Vec<Vec<String>>>,
}

/// A module of a folder that imports from another one of the same folder: the folder and both
/// names.
pub(super) type Import = (String, String, String);

impl Modules {
    pub(super) fn read() -> Self {
        let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let src = folders.find(|folder| folder.join("src/lib.rs").exists()).unwrap().join("src");
        let mut texts = BTreeMap::new();
        let mut pending = vec![(ModulePath::new(), src.join("lib.rs"))];
        while let Some((path, file)) = pending.pop() {
            let text = without_tests(&fs::read_to_string(&file).unwrap());
            pending.extend(children(&path, &file, &text));
            texts.insert(path, text);
        }
        let mut modules = Self::default();
        for (path, text) in &texts {
            let mut names = HashMap::new();
            let mut mentions = Vec::new();
            for (mut used, name) in used_paths(text) {
                let child = [path.as_slice(), &used[..1]].concat();
                if texts.contains_key(&child) && !["crate", "self", "super"].contains(&&*used[0]) {
                    used.insert(0, "self".into());
                }
                if let Some(full) = absolute(path, &used) {
                    names.insert(name, full.clone());
                    mentions.push(full);
                }
            }
            mentions.extend(inline_paths(text).iter().filter_map(|used| absolute(path, used)));
            modules.names.insert(path.clone(), names);
            modules.mentions.insert(path.clone(), mentions);
        }
        modules
    }

    /// The imports between modules of the same folder, through re-exports as well. A folder counts
    /// as one module of the folder above it. The `mod.rs` of a folder does not count: it declares
    /// and re-exports the others.
    pub(super) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (path, mentions) in &self.mentions {
            for mention in mentions {
                let target = self.resolve(mention);
                let shared = path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (path.get(shared), target.get(shared)) {
                    imports.insert((path[..shared].join("/"), from.clone(), to.clone()));
                }
            }
        }
        imports
    }

    /// The module that defines what a path names.
    fn resolve(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        for _ in 0..10 {
            let depth = (0..=path.len()).rev().find(|&n| self.names.contains_key(&path[..n])).unwrap();
            let module = path[..depth].to_vec();
            let renamed = path.get(depth).and_then(|name| self.names[&module].get(name));
            match renamed {
                Some(full) => path.splice(..=depth, full.iter().cloned()).for_each(drop),
                None => return module,
            }
        }
        panic!("{path:?} is re-exported in a circle");
    }
}

/// The code of a file: no comments, and no tests at its end.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            while lines.next_if(|line| line.starts_with("#[")).is_some() {}
            match lines.peek() {
                Some(line) if line.starts_with("mod ") && line.ends_with('{') => break,
                Some(line) if line.ends_with(';') => _ = lines.next(),
                _ => {}
            }
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The modules that a file declares, and their files.
fn children(path: &[String], file: &Path, text: &str) -> Vec<(ModulePath, PathBuf)> {
    let folder = file.parent().unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(name) = line.rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';')) else {
            continue;
        };
        let child = [path, &[name.to_owned()]].concat();
        let file = folder.join(format!("{name}.rs"));
        let file = if file.exists() { file } else { folder.join(name).join("mod.rs") };
        if file.exists() {
            found.push((child, file));
        }
    }
    found
}

/// The paths of all `use` declarations, each with the name that it brings into scope.
fn used_paths(text: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices("use ") {
        let line = &text[text[..start].rfind('\n').map_or(0, |at| at + 1)..start];
        let end = text[start..].find(';').map_or(text.len(), |end| start + end);
        let tree = &text[start + 4..end];
        let is_declaration = line.trim().is_empty() || line.trim().starts_with("pub");
        if is_declaration
            && tree.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_:{},*".contains(c))
        {
            flatten(&[], tree, &mut found);
        }
    }
    found
}

/// Adds the paths of a `use` tree.
fn flatten(prefix: &[String], tree: &str, found: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some((first, rest)) = tree.split_once("::").filter(|(first, _)| !first.contains('{')) {
        flatten(&[prefix, &[first.trim().to_owned()]].concat(), rest, found);
    } else if let Some(list) = tree.strip_prefix('{') {
        let list = list.trim_end().strip_suffix('}').unwrap();
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in list.char_indices().chain([(list.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !list[start..at].trim().is_empty() {
                        flatten(prefix, &list[start..at], found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else {
        let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree));
        let mut path = prefix.to_vec();
        if name != "self" || path.is_empty() {
            path.push(name.to_owned());
        }
        let alias = if alias == "self" { path.last().unwrap() } else { alias };
        found.push((path.clone(), alias.to_owned()));
    }
}

/// The paths in the code that begin with `crate`, `super` or `self`.
fn inline_paths(text: &str) -> Vec<Vec<String>> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (start, _) in text.match_indices(root) {
            if text[..start].ends_with(|letter| is_name(letter) || letter == ':' || letter == '$') {
                continue;
            }
            let end = text[start..].find(|letter| !is_name(letter) && letter != ':').unwrap() + start;
            found.push(
                text[start..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            );
        }
    }
    found
}

/// The path from the root of the crate, unless it leads to another crate.
fn absolute(module: &[String], used: &[String]) -> Option<Vec<String>> {
    let mut full = match used[0].as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        _ => return None,
    };
    for name in &used[1..] {
        if name == "super" {
            full.pop();
        } else {
            full.push(name.clone());
        }
    }
    Some(full)
}
