//! The jar against a slow and obvious reading of the draft, under random histories.

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
struct Place {
    host: &'static str,
    path: &'static str,
    https: bool,
}

impl Place {
    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.host, self.path)
    }
}

#[derive(Clone, Debug)]
struct Set {
    place: Place,
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
    Given(Set),
    Request(Place),
    Removal(&'static str, &'static str, &'static str),
    Pass(i64),
}

fn place() -> impl Strategy<Value = Place> {
    (prop::sample::select(&HOSTS[..]), prop::sample::select(&PATHS[..]), any::<bool>())
        .prop_map(|(host, path, https)| Place { host, path, https })
}

fn set() -> impl Strategy<Value = Set> {
    (
        place(),
        prop::sample::select(&NAMES[..]),
        0..3_u8,
        prop::option::of(prop::sample::select(&DOMAINS[..])),
        prop::option::of(prop::sample::select(&PATHS[..])),
        prop::option::of(-1..20_i64),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(place, name, value, domain, path, max_age, secure)| Set {
            place,
            name,
            value,
            domain,
            path,
            max_age,
            secure,
        })
}

fn events(given: u32) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => set().prop_map(Event::Response),
        given => set().prop_map(Event::Given),
        5 => place().prop_map(Event::Request),
        1 => (
            prop::sample::select(&DOMAINS[..]),
            prop::sample::select(&PATHS[..]),
            prop::sample::select(&NAMES[..]),
        ).prop_map(|(domain, path, name)| Event::Removal(domain, path, name)),
        2 => (0..15_i64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..60)
}

/// One list, searched from end to end, in the words of the draft.
#[derive(Default)]
struct Oracle {
    cookies: Vec<Held>,
    created: usize,
}

struct Held {
    set: Set,
    domain: String,
    host_only: bool,
    path: String,
    expires: Option<i64>,
    created: usize,
}

impl Oracle {
    fn response(&mut self, set: &Set, now: i64) {
        self.cookies.retain(|held| held.expires.is_none_or(|expires| expires > now));
        let host = set.place.host;
        let secure_place = set.place.https || host == "localhost" || host == "127.0.0.1";

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
                let mut segments: Vec<_> = set.place.path.split('/').collect();
                segments.pop();
                let directory = segments.join("/");
                if directory.is_empty() { "/".to_owned() } else { directory }
            }
        };
        if set.secure && !secure_place {
            return;
        }
        if !set.secure && !secure_place {
            let overlaid = self.cookies.iter().any(|old| {
                old.set.secure
                    && old.set.name == set.name
                    // Step 16 read as browsers do: a public suffix shares no host with those below.
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
        self.cookies.push(Held { set: set.clone(), domain, host_only, path, expires, created });
    }

    fn header(&self, place: &Place, now: i64) -> String {
        let secure_place = place.https || place.host == "localhost" || place.host == "127.0.0.1";
        let mut sent: Vec<_> =
            self.cookies
                .iter()
                .filter(|held| held.expires.is_none_or(|expires| expires > now))
                .filter(|held| !held.set.secure || secure_place)
                .filter(|held| {
                    if held.host_only { held.domain == place.host } else { within(place.host, &held.domain) }
                })
                .filter(|held| under(place.path, &held.path))
                .collect();
        sent.sort_by_key(|held| held.created);
        sent.sort_by_key(|held| std::cmp::Reverse(held.path.len()));
        let pairs: Vec<_> = sent
            .iter()
            .map(|held| match held.set.name {
                "" => format!("v{}", held.set.value),
                name => format!("{name}=v{}", held.set.value),
            })
            .collect();
        pairs.join("; ")
    }

    fn remove(&mut self, domain: &str, path: &str, name: &str) {
        let domain = domain.to_lowercase();
        let domain = domain.strip_prefix('.').unwrap_or(&domain);
        self.cookies.retain(|held| !(held.domain == domain && held.path == path && held.set.name == name));
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

fn sent(jar: &mut Jar, place: &Place, now: Timestamp) -> String {
    let url = place.url();
    let value = jar.cookie_header(&CookieUrl::parse(&url).unwrap(), || now);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

/// The header as the cookies that are listed would make it, without anything cached.
fn listed(jar: &Jar, place: &Place, now: Timestamp) -> String {
    let url = place.url();
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
    fn every_header_is_what_the_draft_says(events in events(0)) {
        let (mut jar, mut oracle, mut now) = (Jar::default(), Oracle::default(), START);
        for event in events {
            match event {
                Event::Response(set) => {
                    let url = set.place.url();
                    let target = CookieUrl::parse(&url).unwrap();
                    let _ = jar.store_set_cookie(&target, set.text().as_bytes(), Timestamp::from_secs(now));
                    oracle.response(&set, now);
                }
                Event::Given(_) => {}
                Event::Request(place) => {
                    let now = Timestamp::from_secs(now);
                    prop_assert_eq!(sent(&mut jar, &place, now), oracle.header(&place, now.as_secs()));
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
                    let place = Place { host, path, https };
                    prop_assert_eq!(sent(&mut jar, &place, now), oracle.header(&place, now.as_secs()));
                }
            }
        }
    }

    #[test]
    fn the_cached_header_is_the_uncached_one_and_given_cookies_go_alone(events in events(3)) {
        let (mut jar, mut now) = (Jar::default(), START);
        for event in events {
            let moment = Timestamp::from_secs(now);
            match event {
                Event::Response(set) => {
                    let url = set.place.url();
                    let _ = jar.store_set_cookie(&CookieUrl::parse(&url).unwrap(), set.text().as_bytes(), moment);
                }
                Event::Given(set) => {
                    let _ = jar.set(&set.text(), &set.place.url(), moment);
                }
                Event::Request(_) => {}
                Event::Removal(domain, path, name) => drop(jar.remove(domain, path, name)),
                Event::Pass(secs) => now += secs,
            }
            let moment = Timestamp::from_secs(now);
            for host in HOSTS {
                let place = Place { host, path: "/a/b", https: true };
                prop_assert_eq!(sent(&mut jar, &place, moment), listed(&jar, &place, moment));
                let url = place.url();
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
    fn what_is_written_reads_back_the_same(
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
