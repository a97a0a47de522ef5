//! Checks the wording of the repository: retired words, the width of comments, and file headers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

/// Uses of a retired word that have no better name: file, word, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The widest comment line, in columns.
const COMMENT_WIDTH: usize = 100;

/// Folders that are checked, apart from the files at the top.
const FOLDERS: [&str; 8] = ["src", "tests", "examples", "benches", "fuzz", "docs", ".ci", ".github"];

/// Folders below those with files that git ignores.
const GENERATED: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

/// Every file with one of `extensions`: its path relative to the repository, and its text.
fn files(extensions: &[&str]) -> BTreeMap<String, String> {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("src/lib.rs").exists()).unwrap();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let wanted = if folder == root { FOLDERS.contains(&name) } else { !GENERATED.contains(&name) };
            let extension = path.extension().unwrap_or_default().to_str().unwrap();
            if path.is_dir() {
                if wanted {
                    folders.push(path);
                }
            } else if extensions.contains(&extension) || name == "run" && extensions.contains(&"sh") {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.insert(relative, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.len() > 3, "{:?}", found.keys());
    found
}

/// A word of prose, or one part of an identifier.
struct Word {
    lower: String,
    start: usize,
    end: usize,
}

/// Splits a text at everything that is no letter, and identifiers at their capitals.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut previous = ' ';
    let mut letters = text.char_indices().peekable();
    while let Some((start, letter)) = letters.next() {
        let next = letters.peek().map_or(' ', |&(_, next)| next);
        if letter.is_alphabetic() {
            let begins = !previous.is_alphabetic()
                || letter.is_uppercase() && (previous.is_lowercase() || next.is_lowercase());
            if begins {
                words.push(Word { lower: String::new(), start, end: start });
            }
            let word = words.last_mut().unwrap();
            word.lower.extend(letter.to_lowercase());
            word.end = start + letter.len_utf8();
        }
        previous = letter;
    }
    words
}

/// The glossary without its list of retired words, and that list.
fn glossary(text: &str) -> (&str, &str) {
    text.split_at(text.find("\n## Retired words\n").expect("docs/glossary.md has a list of retired words"))
}

/// The retired words and phrases by their first word, each with its replacements.
type Retired<'a> = HashMap<&'a str, Vec<(Vec<&'a str>, &'a str)>>;

/// Reads a table whose first column lists the forms of a word.
fn retired(list: &str) -> Retired<'_> {
    let mut retired = Retired::new();
    for row in list.lines().filter_map(|line| line.strip_prefix("| ")).skip(1) {
        let (forms, replacement) = row.strip_suffix(" |").and_then(|row| row.split_once(" | ")).unwrap();
        for form in forms.split(", ") {
            let phrase: Vec<_> = form.split(' ').collect();
            retired.entry(phrase[0]).or_default().push((phrase, replacement));
        }
    }
    retired
}

/// The uses of retired words in a text: line, word or phrase, and replacement.
fn retired_uses(text: &str, retired: &Retired<'_>) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let words = words(text);
    for (index, word) in words.iter().enumerate() {
        for (phrase, replacement) in retired.get(&*word.lower).into_iter().flatten() {
            let Some(candidate) = words.get(index..index + phrase.len()) else { continue };
            let is_same = candidate.iter().zip(phrase).all(|(word, retired)| word.lower == *retired);
            let is_joined = candidate.windows(2).all(|pair| joins(&text[pair[0].end..pair[1].start]));
            if is_same && is_joined {
                let line = text[..word.start].matches('\n').count() + 1;
                found.push((line, phrase.join(" "), (*replacement).to_owned()));
            }
        }
    }
    found
}

/// Whether two adjacent words belong to one phrase or identifier: line breaks and comment markers
/// do not separate them, other punctuation does.
fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || "/!_#>*\\".contains(c))
}

#[test]
fn no_retired_word_is_used() {
    let mut files = files(&["rs", "md", "toml", "lua", "py", "sh", "yml"]);
    let all_terms = files.remove("docs/glossary.md").unwrap();
    let (terms, list) = glossary(&all_terms);
    files.insert("docs/glossary.md".into(), terms.into());
    let retired = retired(list);
    assert!(retired.len() > 20, "{retired:?}");
    let mut found = Vec::new();
    let mut excepted = BTreeSet::new();
    for (path, text) in files {
        for (line, phrase, replacement) in retired_uses(&text, &retired) {
            match EXCEPTIONS.iter().find(|(file, word, _)| *file == path && *word == phrase) {
                Some(exception) => _ = excepted.insert(exception),
                None => found.push(format!("{path}:{line}: {phrase} -> {replacement}")),
            }
        }
    }
    assert!(found.is_empty(), "{} retired words:\n{}", found.len(), found.join("\n"));
    assert!(excepted.into_iter().eq(EXCEPTIONS), "an exception is no longer needed, or they are not sorted");
}

#[test]
fn comment_lines_fit_in_the_width() {
    let mut found = Vec::new();
    for (path, text) in files(&["rs"]) {
        let mut is_code = false;
        for (index, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']).trim();
            is_code ^= comment.starts_with("```");
            let is_link = comment.starts_with('[') && comment.contains("]: ") || comment.contains("://");
            let is_table = comment.starts_with('|') && !is_code;
            if line.chars().count() > COMMENT_WIDTH && !is_link && !is_table {
                found.push(format!("{path}:{}: {} columns", index + 1, line.chars().count()));
            }
        }
    }
    assert!(found.is_empty(), "{} comment lines are too wide:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_begins_with_a_sentence_on_its_purpose() {
    let mut found = Vec::new();
    for (path, text) in files(&["rs"]) {
        let mut lines = text.lines().peekable();
        while lines.next_if(|line| line.is_empty() || line.starts_with("#![")).is_some() {}
        let header: Vec<_> = lines
            .map_while(|line| line.strip_prefix("//!"))
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        if !header.last().is_some_and(|line| line.ends_with(['.', ':'])) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "no `//!` sentence at the head of:\n{}", found.join("\n"));
}

#[test]
fn retired_words_are_found_in_prose_and_identifiers() {
    let retired = retired("| no | yes |\n|---|---|\n| fish, fishes | bird |\n| big cat | dog |\n");
    let lines = |text| retired_uses(text, &retired).into_iter().map(|(line, ..)| line).collect::<Vec<_>>();
    assert_eq!(lines("A fish.\nlet HTTPFish = my_fishes;\n`fish`'s FISH"), [1, 2, 2, 3, 3]);
    assert_eq!(lines("a big\n    /// cat is a bigCat, a BIG_CAT"), [1, 2, 2]);
    assert_eq!(lines("fishy, unfish, big, cat, big dog"), [0; 0]);
}
