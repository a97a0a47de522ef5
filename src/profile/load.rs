//! Profiles from TOML and JSON.
//!
//! Both formats are parsed into one tree of [`Node`]s, which keeps the order of fields and, for
//! TOML, their lines. One reader converts the tree into profiles and collects all issues.

use std::{fmt, fs, io, net::IpAddr, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{ProfileError, ProfileErrorKind, ProfileIssue, shown},
    profile::{Profile, ProfileBuilder},
    profiles::{Names, Profiles},
    proxy::Proxy,
};

impl Profiles {
    /// Loads a file, as TOML or JSON according to its extension; see the [module
    /// documentation](super).
    ///
    /// The file is read with blocking I/O.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, has another extension, or has issues: all of
    /// them, each with its entry and field.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let read = match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::from_toml,
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::from_json,
            _ => {
                let text = "unknown format; name the file .toml or .json";
                let issue = ProfileIssue::new(ProfileErrorKind::UnknownFormat, text);
                return Err(ProfileError::from(issue).in_file(path));
            }
        };
        let unreadable = |source: io::Error| {
            ProfileError::from(ProfileIssue::new(ProfileErrorKind::Read, "cannot be read")).because(source)
        };
        fs::read_to_string(path)
            .map_err(unreadable)
            .and_then(|text| read(&text))
            .map_err(|error| error.in_file(path))
    }

    /// Reads profiles from TOML; see the [module documentation](super).
    ///
    /// # Errors
    ///
    /// Returns all issues of the text, each with its entry, field and line.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::profile::Profiles;
    ///
    /// let error = Profiles::from_toml(r#"
    ///     [[profile]]
    ///     user-agent = "crawler/1.0"
    ///     [[profile]]
    ///     proxy = { url = "ftp://proxy.example" }
    ///     agent = "crawler/1.0"
    /// "#).unwrap_err();
    ///
    /// assert_eq!(
    ///     error.to_string(),
    ///     "profile 2: proxy.url: unknown scheme \"ftp\"; use http, https or socks5 (line 5)\n\
    ///      profile 2: agent: unknown field; the fields are \
    ///      name, proxy, user-agent, headers and local-address (line 6)",
    /// );
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let text = without_mark(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // Their `Display` quotes the line, which may contain a password; the message does not.
            let syntax = |error: &toml::de::Error| {
                ProfileIssue::new(ProfileErrorKind::Syntax, format!("not TOML: {}", error.message()))
                    .at_line(error.span().map(|span| line(text, span.start)))
            };
            return Err(ProfileError::new(errors.iter().map(syntax).collect()));
        }
        read(Node { line: None, value: Value::from_toml_table(text, root.into_inner()) })
    }

    /// Reads profiles from JSON; see the [module documentation](super).
    ///
    /// # Errors
    ///
    /// Returns all issues of the text, each with its entry and field.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_client_sessions::profile::Profiles;
    ///
    /// let profiles = Profiles::from_json(r#"[{"proxy": "direct", "user-agent": "a/1.0"}]"#)?;
    /// assert_eq!(profiles.len(), 1);
    /// # Ok::<(), tower_client_sessions::profile::ProfileError>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        let syntax = |error: serde_json::Error| {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = message.strip_suffix(&place).unwrap_or(&message);
            ProfileIssue::new(ProfileErrorKind::Syntax, format!("not JSON: {message}"))
                .at_line(Some(error.line()))
        };
        read(serde_json::from_str(without_mark(text)).map_err(syntax)?)
    }
}

/// A value in a file of either format.
struct Node {
    line: Option<usize>,
    value: Value,
}

enum Value {
    Text(String),
    List(Vec<Node>),
    /// In the order of the file. In JSON, a name may occur twice.
    Table(Vec<(String, Node)>),
    /// A type that no field accepts; its name is for the error.
    Other(&'static str),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    fn from_toml(text: &str, value: DeValue<'_>) -> Self {
        match value {
            DeValue::String(string) => Self::Text(string.into_owned()),
            DeValue::Array(array) => {
                Self::List(array.into_iter().map(|item| Node::from_toml(text, item)).collect())
            }
            DeValue::Table(table) => Self::from_toml_table(text, table),
            DeValue::Boolean(_) => Self::Other("a boolean"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Integer(_) | DeValue::Float(_) => Self::Other("a number"),
        }
    }

    /// The parser sorts fields by name; their positions in the text restore the order.
    fn from_toml_table(text: &str, table: DeTable<'_>) -> Self {
        let mut fields: Vec<_> = table.into_iter().collect();
        fields.sort_by_key(|(name, _)| name.span().start);
        let field =
            |(name, value): (Spanned<_>, _)| (String::from(name.into_inner()), Node::from_toml(text, value));
        Self::Table(fields.into_iter().map(field).collect())
    }
}

impl Node {
    fn from_toml(text: &str, value: Spanned<DeValue<'_>>) -> Self {
        let line = Some(line(text, value.span().start));
        Self { line, value: Value::from_toml(text, value.into_inner()) }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self { line: None, value })
    }
}

/// Accepts any JSON value, so that serde produces no error messages, and keeps the order of fields.
struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut table = Vec::new();
        while let Some(field) = fields.next_entry()? {
            table.push(field);
        }
        Ok(Value::Table(table))
    }
}

fn read(root: Node) -> Result<Profiles, ProfileError> {
    let mut issues = Vec::new();
    let mut list = None;
    match root.value {
        Value::List(entries) => list = Some(entries),
        Value::Table(fields) => {
            for (name, node) in fields {
                let issue = match (name.as_str(), node.value) {
                    ("profile" | "profiles", Value::List(entries)) if list.is_none() => {
                        list = Some(entries);
                        continue;
                    }
                    ("profile" | "profiles", Value::List(_)) => {
                        ProfileIssue::new(ProfileErrorKind::Duplicate, "a second list of profiles")
                    }
                    ("profile" | "profiles", other) => {
                        let text = format!(
                            "is {}, not a list of profiles; in TOML, write [[profile]]",
                            other.kind()
                        );
                        ProfileIssue::new(ProfileErrorKind::WrongType, text)
                    }
                    _ => ProfileIssue::new(
                        ProfileErrorKind::UnknownField,
                        "unknown field; the only field is profile, the list of profiles",
                    ),
                };
                issues.push(issue.at_field(shown(&name).into_owned()).at_line(node.line));
            }
        }
        other => {
            let text = format!("is {}, not a list of profiles", other.kind());
            issues.push(ProfileIssue::new(ProfileErrorKind::WrongType, text));
        }
    }
    let mut names = Names::default();
    let mut profiles = Vec::new();
    for (position, node) in list.unwrap_or_default().into_iter().enumerate() {
        match read_profile(node, &mut names) {
            Ok(profile) => profiles.push(profile),
            Err(error) => {
                issues.extend(error.into_issues().into_iter().map(|issue| issue.at_entry(position + 1)));
            }
        }
    }
    if issues.is_empty() { Profiles::new(profiles) } else { Err(ProfileError::new(issues)) }
}

/// Reads one entry. An issue gets the line of the innermost value that contains it.
fn read_profile(node: Node, names: &mut Names) -> Result<Profile, ProfileError> {
    let mut builder = Profile::builder();
    match node.value {
        Value::Table(fields) => {
            for (name, field) in once_each(&mut builder, "", fields) {
                let line = field.line;
                builder = read_field(builder, &name, field.value, names);
                builder.locate(line);
            }
        }
        other => builder.issue(wrong_type(&other, "a table of fields")),
    }
    builder.build().map_err(|error| {
        let issues = error.into_issues().into_iter().map(|issue| issue.at_line(node.line));
        ProfileError::new(issues.collect())
    })
}

fn read_field(mut builder: ProfileBuilder, name: &str, value: Value, names: &mut Names) -> ProfileBuilder {
    match (name, value) {
        ("name", Value::Text(name)) => {
            if let Some(issue) = names.take(&name) {
                builder.issue(issue);
            }
            builder.name(name)
        }
        ("proxy", Value::Text(url)) => builder.proxy(url),
        ("proxy", Value::Table(fields)) => match read_proxy(&mut builder, fields) {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        },
        ("user-agent", Value::Text(value)) => builder.user_agent(value),
        ("headers", Value::Table(fields)) => {
            for (name, field) in fields {
                match field.value {
                    Value::Text(value) => builder = builder.header(name, value),
                    other => {
                        let field = format!("headers.{}", shown(&name));
                        builder.issue(wrong_type(&other, "text").at_field(field));
                    }
                }
                builder.locate(field.line);
            }
            builder
        }
        ("local-address", Value::Text(address)) => match address.parse::<IpAddr>() {
            Ok(address) => builder.local_address(address),
            Err(_) => builder.with_issue(
                ProfileIssue::new(ProfileErrorKind::LocalAddress, "is not an IP address")
                    .at_field("local-address"),
            ),
        },
        ("name" | "user-agent" | "local-address", other) => {
            builder.with_issue(wrong_type(&other, "text").at_field(name.to_owned()))
        }
        ("proxy", other) => builder.with_issue(wrong_type(&other, "text or a table").at_field("proxy")),
        ("headers", other) => builder.with_issue(wrong_type(&other, "a table").at_field("headers")),
        _ => builder.with_issue(
            ProfileIssue::new(
                ProfileErrorKind::UnknownField,
                "unknown field; the fields are name, proxy, user-agent, headers and local-address",
            )
            .at_field(shown(name).into_owned()),
        ),
    }
}

/// Reads `{ url, username, password }`; the last two are used as written and not decoded.
fn read_proxy(builder: &mut ProfileBuilder, fields: Vec<(String, Node)>) -> Option<Proxy> {
    let has = |field: &str| fields.iter().any(|(name, _)| name == field);
    let missing = |field| ProfileIssue::new(ProfileErrorKind::Missing, "is missing").at_field(field);
    if !has("url") {
        builder.issue(missing("proxy.url"));
    }
    if has("password") && !has("username") {
        builder.issue(missing("proxy.username"));
    }

    let mut proxy = None;
    let mut username = None;
    let mut password = String::new();
    for (name, field) in once_each(builder, "proxy.", fields) {
        match (name.as_str(), field.value) {
            ("url", Value::Text(url)) => match url.parse::<Proxy>() {
                Ok(parsed) => proxy = Some(parsed),
                Err(error) => {
                    error.into_issues().into_iter().for_each(|m| builder.issue(m.at_field("proxy.url")));
                }
            },
            ("username", Value::Text(text)) => username = Some((text, field.line)),
            ("password", Value::Text(text)) => password = text,
            ("url" | "username" | "password", other) => {
                builder.issue(wrong_type(&other, "text").at_field(format!("proxy.{name}")));
            }
            _ => builder.issue(
                ProfileIssue::new(
                    ProfileErrorKind::UnknownField,
                    "unknown field; the fields are url, username and password",
                )
                .at_field(format!("proxy.{}", shown(&name))),
            ),
        }
        builder.locate(field.line);
    }

    let proxy = proxy?;
    let Some((username, line)) = username else {
        return Some(proxy);
    };
    if proxy.server().is_some_and(|server| server.credentials().is_some()) {
        let text = "the URL contains credentials as well";
        let issue = ProfileIssue::new(ProfileErrorKind::Duplicate, text).at_field("proxy.username");
        builder.issue(issue.at_line(line));
        return None;
    }
    match proxy.with_credentials(username, password) {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            error.into_issues().into_iter().for_each(|issue| builder.issue(issue.at_line(line)));
            None
        }
    }
}

/// Returns the fields without duplicates, which are issues. TOML rejects them as syntax errors.
fn once_each(builder: &mut ProfileBuilder, prefix: &str, fields: Vec<(String, Node)>) -> Vec<(String, Node)> {
    let mut once: Vec<(String, Node)> = Vec::with_capacity(fields.len());
    for (name, field) in fields {
        if once.iter().any(|(known, _)| *known == name) {
            let field = format!("{prefix}{}", shown(&name));
            builder.issue(ProfileIssue::new(ProfileErrorKind::Duplicate, "occurs twice").at_field(field));
        } else {
            once.push((name, field));
        }
    }
    once
}

fn wrong_type(found: &Value, expected: &str) -> ProfileIssue {
    ProfileIssue::new(ProfileErrorKind::WrongType, format!("is {}, not {expected}", found.kind()))
}

/// Returns the line of a position in the text, counted from 1.
fn line(text: &str, place: usize) -> usize {
    1 + text.bytes().take(place).filter(|&byte| byte == b'\n').count()
}

/// Removes the byte order mark that editors on Windows write.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn toml_rejected(text: &str, expected: &[&str]) {
        let error = Profiles::from_toml(text).unwrap_err().to_string();
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn json_rejected(text: &str, expected: &[&str]) {
        let error = Profiles::from_json(text).unwrap_err().to_string();
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn toml_and_json_are_equivalent() {
        let toml = r#"
            [[profile]]
            name = "de-1"
            proxy = { url = "http://proxy.example:8080", username = "u@x", password = "5%:" }
            user-agent = "Mozilla/5.0"
            local-address = "192.0.2.1"
            [profile.headers]
            x-b = "1"
            accept-language = "en-GB"
            x-a = "2"

            [[profile]]
            proxy = "direct"

            [[profile]]
            proxy = "socks5://user:pass@[::1]"
        "#;
        let json = r#"[
            {
                "name": "de-1",
                "proxy": { "url": "http://proxy.example:8080", "username": "u@x", "password": "5%:" },
                "user-agent": "Mozilla/5.0",
                "local-address": "192.0.2.1",
                "headers": { "x-b": "1", "accept-language": "en-GB", "x-a": "2" }
            },
            { "proxy": "direct" },
            { "proxy": { "url": "socks5://user:pass@[::1]" } }
        ]"#;
        let from_toml: Vec<_> = Profiles::from_toml(toml).unwrap().iter().cloned().collect();
        for json in [
            json.to_owned(),
            format!("{{\"profile\": {json}}}"),
            format!("{{\"profiles\": {json}}}"),
            format!("\u{feff}{json}"),
        ] {
            assert!(Profiles::from_json(&json).unwrap().iter().eq(&from_toml));
        }
        let first = &from_toml[0];
        assert_eq!(first.name(), Some("de-1"));
        assert_eq!(first.user_agent().unwrap(), "Mozilla/5.0");
        assert_eq!(first.local_address(), Some([192, 0, 2, 1].into()));
        let credentials = first.proxy().unwrap().server().unwrap().credentials().unwrap();
        assert_eq!((credentials.username(), credentials.password()), ("u@x", "5%:"));
        let names: Vec<_> = first.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-b", "accept-language", "x-a"]);
        assert_eq!(from_toml[1].proxy(), Some(&Proxy::direct()));
    }

    #[test]
    fn every_issue_in_toml_is_reported_with_its_line() {
        toml_rejected(
            r#"colour = "red"
[[profile]]
name = "a"
proxy = { url = "ftp://h", usrname = "u", password = "p" }
user-agent = 7

[[profile]]

[[profile]]
name = "a"
proxy = { url = "http://u:p@h", username = "u" }
local-address = "here"
[profile.headers]
host = "h"
x-list = ["a"]

[[profile]]
proxy = true
headers = "none"

[[profile]]
proxy = { username = "u" }

[[profile]]
proxy = { url = "direct", username = "u" }
"#,
            &[
                "colour: unknown field; the only field is profile, the list of profiles (line 1)",
                "profile 1: proxy.username: is missing (line 4)",
                "profile 1: proxy.url: unknown scheme \"ftp\"; use http, https or socks5 (line 4)",
                "profile 1: proxy.usrname: unknown field; the fields are url, username and password (line 4)",
                "profile 1: user-agent: is a number, not text (line 5)",
                "profile 2: sets nothing; give it a proxy, a user agent, headers or a local address (line 7)",
                "profile 3: name: another profile has this name (line 10)",
                "profile 3: proxy.username: the URL contains credentials as well (line 11)",
                "profile 3: local-address: is not an IP address (line 12)",
                "profile 3: headers.host: not allowed in a profile: it is derived from the request URI (line 14)",
                "profile 3: headers.x-list: is a list, not text (line 15)",
                "profile 4: proxy: is a boolean, not text or a table (line 18)",
                "profile 4: headers: is text, not a table (line 19)",
                "profile 5: proxy.url: is missing (line 22)",
                "profile 6: proxy.username: direct takes no credentials (line 25)",
            ],
        );
    }

    #[test]
    fn every_issue_in_json_is_reported() {
        json_rejected(
            r#"{"profile": [
                {"proxy": "http://h", "proxy": "direct", "user_agent": null},
                "direct",
                {"proxy": {"url": "http://h", "url": "http://i", "port": 1}, "headers": {"a": "1", "A": "2", "b": null}},
                {"name": {}, "user-agent": [], "headers": {"http://u:p@h": 1}}
            ], "profiles": []}"#,
            &[
                "profiles: a second list of profiles",
                "profile 1: proxy: occurs twice",
                "profile 1: user_agent: unknown field; the fields are name, proxy, user-agent, headers and local-address",
                "profile 2: is text, not a table of fields",
                "profile 3: proxy.url: occurs twice",
                "profile 3: proxy.port: unknown field; the fields are url, username and password",
                "profile 3: headers.a: occurs twice",
                "profile 3: headers.b: is null, not text",
                "profile 4: name: is a table, not text",
                "profile 4: user-agent: is a list, not text",
                "profile 4: headers.(not shown): is a number, not text",
            ],
        );
    }

    #[test]
    fn files_without_profiles_are_rejected() {
        for text in ["", "# nothing", "profile = []"] {
            toml_rejected(text, &["no profiles"]);
        }
        for text in ["[]", "{}", "{\"profiles\": []}"] {
            json_rejected(text, &["no profiles"]);
        }
        json_rejected("7", &["is a number, not a list of profiles"]);
        toml_rejected(
            "[profile]\nproxy = 'direct'",
            &["profile: is a table, not a list of profiles; in TOML, write [[profile]] (line 1)"],
        );
    }

    #[test]
    fn syntax_errors_have_a_line_and_quote_nothing() {
        let toml = "[[profile]]\nproxy = 'http://u:hunter2@h\n[[profile]]\nproxy = hunter2\n";
        let json = "[\n{\"proxy\": \"http://u:hunter2@h\" hunter2}]";
        for (error, lines) in [
            (Profiles::from_toml(toml).unwrap_err(), &[2, 4][..]),
            (Profiles::from_json(json).unwrap_err(), &[2]),
        ] {
            assert!(error.issues().iter().all(|issue| issue.kind() == ProfileErrorKind::Syntax));
            let found: Vec<_> = error.issues().iter().filter_map(ProfileIssue::line).collect();
            assert_eq!(found, lines, "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        toml_rejected("[[profile]]\nname = 'a'\nname = 'b'", &["not TOML: duplicate key (line 3)"]);
    }

    #[test]
    fn the_extension_selects_the_format() {
        let folder = std::env::temp_dir().join(format!("profiles-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in
            [("a.toml", "[[profile]]\nproxy = 'direct'"), ("a.JSON", r#"[{"proxy": "direct"}]"#)]
        {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            assert_eq!(Profiles::from_path(&path).unwrap().len(), 1);
            fs::write(&path, "[[").unwrap();
            let error = Profiles::from_path(&path).unwrap_err();
            assert_eq!((error.kind(), error.file()), (ProfileErrorKind::Syntax, Some(&*path)));
        }
        let error = Profiles::from_path(folder.join("none.toml")).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Read);
        assert!(error.source().is_some());
        fs::remove_dir_all(&folder).unwrap();

        let error = Profiles::from_path("profiles.yaml").unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::UnknownFormat);
        assert_eq!(error.to_string(), "profiles.yaml: unknown format; name the file .toml or .json");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".*", value in "[\\[\\]{}a-z=:,'\" \n]*") {
            for text in [&text, &value, &format!("[[profile]]\nproxy = {value}"), &format!("[{{\"proxy\":{value}}}]")] {
                let _ = Profiles::from_toml(text);
                let _ = Profiles::from_json(text);
            }
        }
    }
}
