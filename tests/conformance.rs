//! Runs the cookie cases of public test suites, and counts the results.
//!
//! The cases are not in the repository: `COOKIE_CASES` is a directory of JSON files, each a list of
//! cookie cases (`set`, `get`) or of dates (`date`). Without the variable, the test is skipped. It
//! fails if a scored case or a date fails.

use std::{collections::BTreeMap, env, fs, path::Path, process::ExitCode, time::Duration};

use http::{HeaderValue, Uri};
use serde_json::Value;
use tower_client_sessions::cookies::{CookieUrl, Jar, Timestamp, parse_date};

fn main() -> ExitCode {
    let Some(directory) = env::var_os("COOKIE_CASES") else {
        println!("conformance: skipped, COOKIE_CASES is not set");
        return ExitCode::SUCCESS;
    };

    let mut scores = Scores::default();
    for entry in entries(Path::new(&directory)) {
        scores.count(&entry);
    }
    scores.print();
    if scores.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The entries of all files, in the order of the file names.
fn entries(directory: &Path) -> Vec<Value> {
    let listing = fs::read_dir(directory).expect("COOKIE_CASES should be a readable directory");
    let mut files: Vec<_> = listing
        .map(|file| file.expect("the directory should be readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let text = fs::read(path).expect("a file of cases should be readable");
            let list: Vec<Value> =
                serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            list
        })
        .collect()
}

#[derive(Default)]
struct Scores {
    groups: BTreeMap<String, Score>,
    scored: Score,
    string_api: Score,
    unscored: Score,
    dates: Score,
}

#[derive(Clone, Copy, Default)]
struct Score {
    passed: usize,
    total: usize,
}

impl Score {
    fn add(&mut self, passed: bool) {
        self.passed += usize::from(passed);
        self.total += 1;
    }
}

impl Scores {
    fn count(&mut self, entry: &Value) {
        let id = entry["id"].as_str().unwrap_or("?");
        if let Some(date) = entry.get("date") {
            let passed = date_passes(entry);
            if !passed {
                println!("failed: {id}: {date}");
            }
            self.dates.add(passed);
            return;
        }

        let flag = |name: &str| entry[name].as_bool().unwrap_or(false);
        let agreed = list(&entry["agrees_with"]).any(|text| text == "rfc6265bis");
        let wire = flag("wire");
        let outcome = run(entry, wire);
        let (kind, score) = match (flag("third_party") && agreed, wire) {
            (true, true) => ("failed", &mut self.scored),
            (true, false) => ("failed (string api)", &mut self.string_api),
            (false, _) => ("differs (not scored)", &mut self.unscored),
        };
        score.add(outcome.is_ok());
        if kind == "failed" {
            let group = entry["group"].as_str().unwrap_or("?").to_owned();
            self.groups.entry(group).or_default().add(outcome.is_ok());
        }
        if let Err(difference) = outcome {
            println!("{kind}: {id}: {difference}");
        }
    }

    fn failed(&self) -> bool {
        self.scored.passed < self.scored.total || self.dates.passed < self.dates.total
    }

    fn print(&self) {
        for (group, score) in &self.groups {
            println!("{group}: {}/{}", score.passed, score.total);
        }
        println!("not scored: {}/{} agree", self.unscored.passed, self.unscored.total);
        println!(
            "cookies: {}/{} scored, {}/{} string-api, dates: {}/{}",
            self.scored.passed,
            self.scored.total,
            self.string_api.passed,
            self.string_api.total,
            self.dates.passed,
            self.dates.total,
        );
    }
}

/// Runs all `set` steps and then all `get` steps, with a new jar and the times of the case.
fn run(case: &Value, wire: bool) -> Result<(), String> {
    let start = Timestamp::now();
    let mut jar = Jar::default();
    for step in list(&case["set"]) {
        let url = step["url"].as_str().expect("a step should have a url");
        for set_cookie in list(&step["set_cookie"]) {
            store(&mut jar, url, &bytes(set_cookie), wire, start)?;
        }
    }
    for step in list(&case["get"]) {
        let url = step["url"].as_str().expect("a step should have a url");
        let after = Duration::from_secs_f64(step["after_s"].as_f64().unwrap_or(0.0));
        let now = start.saturating_add(after);
        let header = with_url(url, |url| jar.cookie_header(url, || now))?;

        let expected = &step["expect_cookie_header"];
        let expected = (!expected.is_null()).then(|| bytes(expected));
        let sent = header.as_ref().map(|header| header.as_bytes().to_vec());
        let unordered = case["unordered"].as_bool().unwrap_or(false);
        if !same(sent.as_deref(), expected.as_deref(), unordered) {
            let show =
                |text: &Option<Vec<u8>>| text.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
            return Err(format!("{url}: {:?}, expected {:?}", show(&sent), show(&expected)));
        }
    }
    Ok(())
}

/// Stores a cookie. Many cases are about rejected cookies, so a rejection is not a failure.
fn store(jar: &mut Jar, url: &str, set_cookie: &[u8], wire: bool, now: Timestamp) -> Result<(), String> {
    let text = std::str::from_utf8(set_cookie);
    match text {
        Ok(text) if !wire => {
            let _ = jar.set(text, url, now);
        }
        _ => {
            // Like the header of a response.
            let set_cookie = HeaderValue::from_bytes(set_cookie)
                .map_err(|_| "the case is not a valid header value".to_owned())?;
            let _ = with_url(url, |url| jar.store_set_cookie(url, set_cookie.as_bytes(), now).map(|_| ()))?;
        }
    }
    Ok(())
}

/// Calls a closure with a URL from a `Uri`, like a client, or from a string if it is not ASCII.
fn with_url<T>(url: &str, call: impl FnOnce(&CookieUrl<'_>) -> T) -> Result<T, String> {
    if !url.is_ascii() {
        let url = CookieUrl::parse(url).map_err(|error| error.to_string())?;
        return Ok(call(&url));
    }
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let url = CookieUrl::from_uri(&uri).map_err(|error| error.to_string())?;
    Ok(call(&url))
}

fn same(sent: Option<&[u8]>, expected: Option<&[u8]>, unordered: bool) -> bool {
    let (Some(sent), Some(expected), true) = (sent, expected, unordered) else {
        return sent == expected;
    };
    let sorted = |header: &[u8]| {
        let header = String::from_utf8_lossy(header).into_owned();
        let mut cookies: Vec<_> = header.split("; ").map(str::to_owned).collect();
        cookies.sort();
        cookies
    };
    sorted(sent) == sorted(expected)
}

/// Checks a date. The case has the expected date (`expected`, `null` for an invalid one), another
/// date that is equal (`same_as`), or only whether the date is valid (`parses`).
fn date_passes(entry: &Value) -> bool {
    let read = parse_date(&bytes(&entry["date"]));
    if let Some(parses) = entry["parses"].as_bool() {
        return read.is_some() == parses;
    }
    if let Some(other) = entry.get("same_as") {
        return read.is_some() && read == parse_date(&bytes(other));
    }
    match entry["expected"].as_str() {
        // The expected date is in the form that all parsers read in the same way.
        Some(expected) => read.is_some() && read == imf_fixdate(expected),
        None => read.is_none(),
    }
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT` by position, independently of the parser under test.
fn imf_fixdate(text: &str) -> Option<Timestamp> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let month = MONTHS.find(text.get(8..11)?)? / 3;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = if year >= 1970 {
        (1970..year).map(|year| 365 + i64::from(leap(year))).sum()
    } else {
        -(year..1970).map(|year| 365 + i64::from(leap(year))).sum::<i64>()
    };
    let days = years + lengths[..month].iter().sum::<i64>() + day - 1;
    let secs = days * 86_400 + number(17, 19)? * 3_600 + number(20, 22)? * 60 + number(23, 25)?;
    Some(Timestamp::from_secs(secs))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string of a case: UTF-8, or `{"hex": ".."}`.
fn bytes(value: &Value) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return text.as_bytes().to_vec();
    }
    let hex = value["hex"].as_str().expect("a text should be a string or an object with `hex`");
    let digits: Vec<u32> =
        hex.chars().map(|digit| digit.to_digit(16).expect("the digits should be hexadecimal")).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
