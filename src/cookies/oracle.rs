//! Compares the jar with a slow and simple implementation of the draft, on random histories.

use proptest::prelude::*;

use super::*;

const START: i64 = 1_700_000_000;
const HOSTS: [&str; 10] = [
    "x.example",
    "www.x.example",
    "a.www.x.example",
    "y.example",
    "shop.co.uk",
    "co.uk",
    "127.0.0.1",
    "localhost",
    "b.s3.amazonaws.com",
    "c.amazonaws.com",
];
const DOMAINS: [&str; 11] = [
    "",
    "x.example",
    ".x.example",
    "WWW.x.example",
    "example",
    "co.uk",
    "shop.co.uk",
    "0.0.1",
    "localhost",
    "amazonaws.com",
    "s3.amazonaws.com",
];
const PATHS: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"];
const NAMES: [&str; 4] = ["n", "m", "", "__Host-n"];

#[derive(Clone, Debug)]
struct Location {
    host: &'static str,
    path: &'static str,
    https: bool,
}

impl Location {
    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.host, self.path)
    }
}

#[derive(Clone, Debug)]
struct Set {
    location: Location,
    name: &'static str,
    value: u8,
    domain: Option<&'static str>,
    path: Option<&'static str>,
    max_age: Option<i64>,
    secure: bool,
}

impl Set {
    fn text(&self) -> String {
        let mut text = format!("{}=v{}", self.name, self.value);
        if let Some(domain) = self.domain {
            text += &format!("; Domain={domain}");
        }
        if let Some(path) = self.path {
            text += &format!("; Path={path}");
        }
        if let Some(age) = self.max_age {
            text += &format!("; Max-Age={age}");
        }
        if self.secure {
            text += "; Secure";
        }
        text
    }
}

#[derive(Clone, Debug)]
enum Event {
    Response(Set),
    UserSet(Set),
    Request(Location),
    Removal(&'static str, &'static str, &'static str),
    Pass(i64),
}

fn location() -> impl Strategy<Value = Location> {
    (prop::sample::select(&HOSTS[..]), prop::sample::select(&PATHS[..]), any::<bool>())
        .prop_map(|(host, path, https)| Location { host, path, https })
}

fn set() -> impl Strategy<Value = Set> {
    (
        location(),
        prop::sample::select(&NAMES[..]),
        0..3_u8,
        prop::option::of(prop::sample::select(&DOMAINS[..])),
        prop::option::of(prop::sample::select(&PATHS[..])),
        prop::option::of(-1..20_i64),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(location, name, value, domain, path, max_age, secure)| Set {
            location,
            name,
            value,
            domain,
            path,
            max_age,
            secure,
        })
}

fn events(user_set: u32) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => set().prop_map(Event::Response),
        user_set => set().prop_map(Event::UserSet),
        5 => location().prop_map(Event::Request),
        1 => (
            prop::sample::select(&DOMAINS[..]),
            prop::sample::select(&PATHS[..]),
            prop::sample::select(&NAMES[..]),
        ).prop_map(|(domain, path, name)| Event::Removal(domain, path, name)),
        2 => (0..15_i64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..60)
}

/// A plain list of cookies that follows the text of the draft.
#[derive(Default)]
struct Oracle {
    cookies: Vec<Entry>,
    created: usize,
}

struct Entry {
    set: Set,
    domain: String,
    host_only: bool,
    path: String,
    expires: Option<i64>,
    created: usize,
}

impl Oracle {
    fn response(&mut self, set: &Set, now: i64) {
        self.cookies.retain(|entry| entry.expires.is_none_or(|expires| expires > now));
        let host = set.location.host;
        let is_secure = set.location.https || host == "localhost" || host == "127.0.0.1";

        let mut domain = set.domain.unwrap_or("").to_lowercase();
        domain = domain.strip_prefix('.').unwrap_or(&domain).to_owned();
        if ["example", "co.uk", "localhost", "s3.amazonaws.com"].contains(&domain.as_str()) {
            if domain != host {
                return;
            }
            domain.clear();
        }
        if !domain.is_empty() && !within(host, &domain) {
            return;
        }
        let host_only = domain.is_empty();
        if host_only {
            domain = host.to_owned();
        }
        let path = match set.path {
            Some(path) => path.to_owned(),
            None => {
                let mut segments: Vec<_> = set.location.path.split('/').collect();
                segments.pop();
                let directory = segments.join("/");
                if directory.is_empty() { "/".to_owned() } else { directory }
            }
        };
        if set.secure && !is_secure {
            return;
        }
        if !set.secure && !is_secure {
            let overlaid = self.cookies.iter().any(|old| {
                old.set.secure
                    && old.set.name == set.name
                    // Step 16 as browsers implement it: a public suffix shares no cookies with its
                    // subdomains.
                    && (old.domain == "co.uk") == (domain == "co.uk")
                    && (within(&old.domain, &domain) || within(&domain, &old.domain))
                    && under(&path, &old.path)
            });
            if overlaid {
                return;
            }
        }
        if set.name == "__Host-n" && !(set.secure && host_only && set.path == Some("/")) {
            return;
        }

        let mut created = self.created;
        self.created += 1;
        if let Some(at) = self.cookies.iter().position(|old| {
            old.set.name == set.name && old.domain == domain && old.host_only == host_only && old.path == path
        }) {
            created = self.cookies.remove(at).created;
        }
        if set.max_age.is_some_and(|age| age <= 0) {
            return;
        }
        let expires = set.max_age.map(|age| now + age);
        self.cookies.push(Entry { set: set.clone(), domain, host_only, path, expires, created });
    }

    fn header(&self, location: &Location, now: i64) -> String {
        let is_secure = location.https || location.host == "localhost" || location.host == "127.0.0.1";
        let mut sent: Vec<_> = self
            .cookies
            .iter()
            .filter(|entry| entry.expires.is_none_or(|expires| expires > now))
            .filter(|entry| !entry.set.secure || is_secure)
            .filter(|entry| {
                if entry.host_only {
                    entry.domain == location.host
                } else {
                    within(location.host, &entry.domain)
                }
            })
            .filter(|entry| under(location.path, &entry.path))
            .collect();
        sent.sort_by_key(|entry| entry.created);
        sent.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        let pairs: Vec<_> = sent
            .iter()
            .map(|entry| match entry.set.name {
                "" => format!("v{}", entry.set.value),
                name => format!("{name}=v{}", entry.set.value),
            })
            .collect();
        pairs.join("; ")
    }

    fn remove(&mut self, domain: &str, path: &str, name: &str) {
        let domain = domain.to_lowercase();
        let domain = domain.strip_prefix('.').unwrap_or(&domain);
        self.cookies
            .retain(|entry| !(entry.domain == domain && entry.path == path && entry.set.name == name));
    }
}

fn within(host: &str, domain: &str) -> bool {
    if host == domain {
        return true;
    }
    let labels = |name: &str| -> Vec<String> { name.split('.').map(str::to_owned).collect() };
    let numeric = host.split('.').all(|label| label.parse::<u8>().is_ok());
    !numeric && labels(host).ends_with(&labels(domain))
}

fn under(request: &str, path: &str) -> bool {
    if request == path {
        return true;
    }
    let directory = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
    request.starts_with(&directory)
}

fn sent(jar: &mut Jar, location: &Location, now: Timestamp) -> String {
    let url = location.url();
    let value = jar.cookie_header(&CookieUrl::parse(&url).unwrap(), || now);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

/// The header from the list of matching cookies, without a cache.
fn uncached(jar: &Jar, location: &Location, now: Timestamp) -> String {
    let url = location.url();
    let pairs: Vec<_> = jar
        .matching(&CookieUrl::parse(&url).unwrap(), now)
        .iter()
        .map(|cookie| match cookie.name().unwrap() {
            "" => cookie.value().unwrap().to_owned(),
            name => format!("{name}={}", cookie.value().unwrap()),
        })
        .collect();
    pairs.join("; ")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_headers_follow_the_draft(events in events(0)) {
        let (mut jar, mut oracle, mut now) = (Jar::default(), Oracle::default(), START);
        for event in events {
            match event {
                Event::Response(set) => {
                    let url = set.location.url();
                    let target = CookieUrl::parse(&url).unwrap();
                    let _ = jar.store_set_cookie(&target, set.text().as_bytes(), Timestamp::from_secs(now));
                    oracle.response(&set, now);
                }
                Event::UserSet(_) => {}
                Event::Request(location) => {
                    let now = Timestamp::from_secs(now);
                    prop_assert_eq!(sent(&mut jar, &location, now), oracle.header(&location, now.as_secs()));
                }
                Event::Removal(domain, path, name) => {
                    jar.remove(domain, path, name);
                    oracle.remove(domain, path, name);
                }
                Event::Pass(secs) => now += secs,
            }
        }
        let now = Timestamp::from_secs(now);
        for host in HOSTS {
            for path in PATHS {
                for https in [true, false] {
                    let location = Location { host, path, https };
                    prop_assert_eq!(sent(&mut jar, &location, now), oracle.header(&location, now.as_secs()));
                }
            }
        }
    }

    #[test]
    fn cached_headers_equal_uncached_ones_and_user_set_cookies_are_never_doubled(events in events(3)) {
        let (mut jar, mut now) = (Jar::default(), START);
        for event in events {
            let moment = Timestamp::from_secs(now);
            match event {
                Event::Response(set) => {
                    let url = set.location.url();
                    let _ = jar.store_set_cookie(&CookieUrl::parse(&url).unwrap(), set.text().as_bytes(), moment);
                }
                Event::UserSet(set) => {
                    let _ = jar.set(&set.text(), &set.location.url(), moment);
                }
                Event::Request(_) => {}
                Event::Removal(domain, path, name) => drop(jar.remove(domain, path, name)),
                Event::Pass(secs) => now += secs,
            }
            let moment = Timestamp::from_secs(now);
            for host in HOSTS {
                let location = Location { host, path: "/a/b", https: true };
                prop_assert_eq!(sent(&mut jar, &location, moment), uncached(&jar, &location, moment));
                let url = location.url();
                let target = CookieUrl::parse(&url).unwrap();
                let cookies = jar.matching(&target, moment);
                for (at, cookie) in cookies.iter().enumerate() {
                    for other in &cookies[at + 1..] {
                        let alike = cookie.same_name_and_path(other);
                        prop_assert!(!(alike && (cookie.is_user_set() || other.is_user_set())));
                    }
                }
            }
        }
    }

    #[test]
    fn no_input_panics(
        url in "(https?://)?[a-z.\\[\\]:0-9ü%@]{0,20}/?.{0,10}",
        set_cookie in prop::collection::vec(any::<u8>(), 0..120),
        text in "[a-zA-Z=;, .\\-0-9]{0,80}",
    ) {
        let mut jar = Jar::default();
        let now = Timestamp::from_secs(START);
        let _ = parse_date(&set_cookie);
        let _ = parse_date(text.as_bytes());
        let _ = jar.set(&text, &url, now);
        let _ = jar.add([(text.as_str(), url.as_str())], &url, now);
        let _ = StoredCookie::for_domain(set_cookie.clone(), text.clone(), url.clone()).build();
        let _ = jar.remove(&url, &text, &text);
        if let Ok(target) = CookieUrl::parse(&url) {
            let _ = jar.store_set_cookie(&target, &set_cookie, now);
            let _ = jar.store_set_cookie(&target, text.as_bytes(), now);
            let _ = jar.cookie_header(&target, || now);
        }
    }

    #[test]
    fn a_written_cookie_is_parsed_unchanged(
        name in "[a-z\\-_ \"ü]{0,8}",
        value in "[a-z= ,\"\tü]{0,12}",
        attributes in prop::collection::vec(
            prop::sample::select(&[
                "Path=/a/b", "Path=/", "Path=x", "Domain=x.example", "Domain=", "Max-Age=10",
                "Max-Age=0", "Expires=Wed, 15 Nov 2023 10:00:00 GMT", "Secure", "HttpOnly",
                "SameSite=Lax", "SameSite=None", "SameSite=x", "Partitioned", "Else=1",
            ][..]),
            0..6,
        ),
    ) {
        let url = "https://www.x.example/a/b/c";
        let target = CookieUrl::parse(url).unwrap();
        let now = Timestamp::from_secs(START);
        let text = format!("{name}={value}; {}", attributes.join("; "));
        let mut jar = Jar::default();
        if let Ok(first) = jar.store_set_cookie(&target, text.as_bytes(), now)
            && let Some(first) = first.cookie().cloned()
        {
                let written = first.to_set_cookie();
                let mut other = Jar::default();
                let second = other.store_set_cookie(&target, &written, now).unwrap();
                let second = second.cookie().cloned().unwrap();
                prop_assert_eq!(&first, &second);
                prop_assert_eq!(written, second.to_set_cookie());
        }
    }
}
