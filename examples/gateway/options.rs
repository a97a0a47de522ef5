//! The command line of the gateway.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use lexopt::{Arg, Parser, ValueExt};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tower::BoxError;

use crate::args::number;

const HELP: &str = "\
A local proxy that adds to each request the session that its x-session header names.

Usage: gateway [OPTIONS]

      --listen ADDR            address to listen on; port 0 selects a free port [127.0.0.1:8080]
      --allow-remote           allow a --listen address that other machines can reach
      --default-session NAME   session of requests without x-session; by default they are rejected
      --max-sessions N         number of sessions to keep, most recently used first [10000]
      --profiles FILE          profiles of the sessions, TOML or JSON; without it, all connect directly
      --connections N          open connections, both to clients and to origins [1024]
      --timeout-ms N           longest wait for the head of a response [60000]
      --max-body N             bytes of a request body, which is buffered before it is sent [1048576]
      --extra-root FILE        trusted certificates in addition to Mozilla's, PEM

Expiry and renewal:
      --expired LIST           statuses that mean a session has expired [401]
      --expired-redirect PATH  a redirect to this path means the same
      --login-url URL          URL of the login, with {session}; by default the next request is sent alone
      --login-form FORM        form to post to that URL, such as user={session}&password=secret
      --login-cookie NAME      cookie that a login must set [any]
      --max-uses N             renew early, before a session has had this many uses
      --replays N              most replays of one request [4]

Exit status: 2 if an option is invalid or the address is in use.
";

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) default_session: Option<String>,
    pub(crate) max_sessions: usize,
    pub(crate) profiles: Option<PathBuf>,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) add_root_certificates: Vec<CertificateDer<'static>>,
    pub(crate) expired: Vec<u16>,
    pub(crate) expired_redirect: Option<String>,
    pub(crate) login: Option<Login>,
    pub(crate) max_uses: Option<u64>,
    pub(crate) replays: u32,
}

/// How to log in.
#[derive(Clone)]
pub(crate) struct Login {
    url: String,
    form: Option<String>,
    pub(crate) cookie: Option<String>,
}

impl Login {
    /// The login of a session. Its name comes from the client, so it is percent-encoded.
    pub(crate) fn request(&self, session: &str) -> Result<Request<Full<Bytes>>, BoxError> {
        let fill = |template: &str| template.replace("{session}", &encode(session));
        let uri: Uri = fill(&self.url).parse()?;
        Ok(match &self.form {
            None => Request::get(uri).body(Full::default())?,
            Some(form) => Request::post(uri)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(fill(form)))?,
        })
    }
}

impl Options {
    /// Reads the command line. Returns `None` after printing the help.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        let mut options = Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            default_session: None,
            max_sessions: 10_000,
            profiles: None,
            connections: 1024,
            timeout: Duration::from_secs(60),
            max_body: 1 << 20,
            add_root_certificates: Vec::new(),
            expired: vec![401],
            expired_redirect: None,
            login: None,
            max_uses: None,
            replays: 4,
        };
        let (mut remote, mut url, mut form, mut cookie) = (false, None, None, None);
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("listen") => {
                    let listen = parser.value()?.string()?;
                    options.listen = listen
                        .parse()
                        .map_err(|_| format!("--listen {listen:?}: give an address and a port"))?;
                }
                Arg::Long("allow-remote") => remote = true,
                Arg::Long("default-session") => options.default_session = Some(parser.value()?.string()?),
                Arg::Long("max-sessions") => options.max_sessions = number(&mut parser, "--max-sessions", 1)?,
                Arg::Long("profiles") => options.profiles = Some(parser.value()?.into()),
                Arg::Long("connections") => options.connections = number(&mut parser, "--connections", 1)?,
                Arg::Long("timeout-ms") => {
                    options.timeout = Duration::from_millis(number(&mut parser, "--timeout-ms", 1)?);
                }
                Arg::Long("max-body") => options.max_body = number(&mut parser, "--max-body", 0)?,
                Arg::Long("extra-root") => {
                    let file = PathBuf::from(parser.value()?);
                    let roots: Result<Vec<_>, _> =
                        CertificateDer::pem_file_iter(&file).and_then(Iterator::collect);
                    let roots = roots.map_err(|error| format!("--extra-root {}: {error}", file.display()))?;
                    options.add_root_certificates.extend(roots);
                }
                Arg::Long("expired") => options.expired = statuses(&parser.value()?.string()?)?,
                Arg::Long("expired-redirect") => options.expired_redirect = Some(parser.value()?.string()?),
                Arg::Long("login-url") => url = Some(parser.value()?.string()?),
                Arg::Long("login-form") => form = Some(parser.value()?.string()?),
                Arg::Long("login-cookie") => cookie = Some(parser.value()?.string()?),
                Arg::Long("max-uses") => options.max_uses = Some(number(&mut parser, "--max-uses", 1)?),
                Arg::Long("replays") => options.replays = number(&mut parser, "--replays", 0)?,
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                unknown => return Err(format!("{}; see --help", unknown.unexpected()).into()),
            }
        }
        if !options.listen.ip().is_loopback() && !remote {
            return Err(format!(
                "--listen {}: other machines could reach the gateway and use your sessions; add --allow-remote to permit it",
                options.listen
            )
            .into());
        }
        options.login = match url {
            Some(url) => {
                let login = Login { url, form, cookie };
                let request = login.request("name");
                let whole =
                    request.as_ref().is_ok_and(|it| it.uri().scheme().is_some() && it.uri().host().is_some());
                if !whole {
                    return Err(
                        format!("--login-url {:?}: give a complete http or https URL", login.url).into()
                    );
                }
                Some(login)
            }
            None if form.is_some() || cookie.is_some() => {
                return Err("--login-form and --login-cookie need a --login-url".into());
            }
            None => None,
        };
        Ok(Some(options))
    }
}

fn statuses(list: &str) -> Result<Vec<u16>, String> {
    let status = |text: &str| {
        let status = text.trim().parse().ok().filter(|status| StatusCode::from_u16(*status).is_ok());
        status.ok_or_else(|| format!("--expired {list:?}: give a list of statuses, such as 401,403"))
    };
    list.split(',').map(status).collect()
}

/// Percent-encodes all but letters, digits and `-._~`.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => String::from(char::from(byte)),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
