//! Records what the gate does to the requests of one session on a real site, and draws it with a
//! row for each request.
//!
//! `cargo run --release --example timeline > docs/timeline.svg`

mod site;

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use site::{Site, SiteConfig};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_client_sessions::{
    Expired, Renewal, RenewalLayer, SessionId, SessionLayer, Sessions,
    session::{Event, EventKind, RequestPhase},
};

const PAGES: usize = 40;
const IN_FLIGHT: usize = 10;
/// The number of pages per login. At least three logins are necessary.
const PAGES_PER_LOGIN: u32 = 16;
const LOGINS: u32 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let config =
        SiteConfig { budget: PAGES_PER_LOGIN, login_ms: 30, latency_ms: 12, ..SiteConfig::default() };
    let site = Site::start(config).await?;
    let sessions = Sessions::builder().login_first().build()?;
    let mut events = sessions.events();
    let login = site.url("/login?acct=alice");
    let client = ServiceBuilder::new()
        .layer(RenewalLayer::new(&sessions).expired_when(Expired::status([403])).replay_limit(4).renew_with(
            move |renewal: Renewal<Empty<Bytes>>| {
                let login = login.clone();
                async move {
                    renewal.send(Request::get(login).body(Empty::new())?).await?;
                    renewal.require_success()?;
                    renewal.require_cookie("sid")
                }
            },
        ))
        .layer(SessionLayer::new(&sessions))
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    let mut running = JoinSet::new();
    for page in 0..PAGES {
        if running.len() == IN_FLIGHT {
            read(running.join_next().await.ok_or("a page")???).await?;
        }
        let request = Request::get(site.url(&format!("/page/{page}?acct=alice&late_ms={}", page * 7 % 10)))
            .extension(SessionId::from("alice"))
            .body(Empty::new())?;
        running.spawn(client.clone().oneshot(request));
    }
    while let Some(done) = running.join_next().await {
        read(done??).await?;
    }
    let recorded: Vec<Event> = std::iter::from_fn(|| events.try_recv()).collect();
    let seen = site.shutdown().await;
    assert_eq!((seen.logins(), events.lagged()), (LOGINS, 0));
    let timeline = Timeline::read(&recorded);
    assert_eq!(timeline.rows.len(), PAGES);
    eprintln!(
        "{PAGES} pages, {IN_FLIGHT} in flight, {LOGINS} logins, {} pages replayed, in {:.0?}",
        seen.pages_refused, timeline.end
    );
    print!("{timeline}");
    Ok(())
}

async fn read(response: Response<Incoming>) -> Result<(), BoxError> {
    assert_eq!(response.status(), 200);
    response.into_body().collect().await?;
    Ok(())
}

/// The meaning of a segment of a bar.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Waiting,
    Sent(u64),
    Rejected(u64),
}

/// A segment with its start and end.
type Bar = (Part, Duration, Duration);

#[derive(Default)]
struct Timeline {
    rows: BTreeMap<u64, Vec<Bar>>,
    renewals: Vec<Bar>,
    generations: Vec<Bar>,
    end: Duration,
}

impl Timeline {
    fn read(events: &[Event]) -> Self {
        let mut timeline = Self::default();
        let origin = events.first().map_or(Duration::ZERO, |event| event.at);
        let mut open = BTreeMap::new();
        for event in events {
            let at = event.at - origin;
            timeline.end = at;
            match event.kind {
                EventKind::RenewalStarted { generation, .. } => {
                    timeline.renewals.push((Part::Sent(generation), at, at));
                }
                EventKind::RenewalCommitted { took, .. } => {
                    if let Some(last) = timeline.renewals.last_mut() {
                        last.2 = last.1 + took;
                    }
                }
                EventKind::Activated { generation } => {
                    timeline.generations.push((Part::Sent(generation), at, Duration::MAX));
                }
                EventKind::Invalidated { .. } => {
                    if let Some(last) = timeline.generations.last_mut() {
                        last.2 = at;
                    }
                }
                EventKind::Request { number, phase } => {
                    let row = timeline.rows.entry(number).or_default();
                    match phase {
                        RequestPhase::Waiting => {
                            open.insert(number, (Part::Waiting, at));
                        }
                        RequestPhase::Sent { generation } => {
                            open.insert(number, (Part::Sent(generation), at));
                        }
                        RequestPhase::Replayed { generation, .. } => {
                            let sent = open.remove(&number);
                            row.extend(sent.map(|(_, since)| (Part::Rejected(generation), since, at)));
                        }
                        RequestPhase::Released | RequestPhase::Completed { .. } => {
                            row.extend(open.remove(&number).map(|(part, since)| (part, since, at)));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        for bar in &mut timeline.generations {
            bar.2 = bar.2.min(timeline.end);
        }
        timeline
    }
}

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 108.0;
const RIGHT: f64 = 24.0;
const ROW_HEIGHT: f64 = 13.0;
/// Where the rows begin, below the title, the legend, the renewals and the generations.
const TOP: f64 = 148.0;
/// Distinguishable with colour vision deficiency.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const WAITING: &str = "#d3d8de";
const RENEWAL: &str = "#2f3640";

fn colour(generation: u64) -> &'static str {
    COLOURS[generation.saturating_sub(1) as usize % COLOURS.len()]
}

impl Timeline {
    fn x(&self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() / self.end.as_secs_f64().max(0.001) * (WIDTH - LEFT - RIGHT)
    }

    fn bar(&self, f: &mut impl Write, bar: &Bar, top: f64, height: f64, fill: &str) -> fmt::Result {
        let (_, from, to) = *bar;
        let (left, right) = (self.x(from), self.x(to));
        let width = (right - left).max(1.0);
        let radius = 2.0_f64.min(width / 2.0);
        writeln!(
            f,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius:.1}\" {fill}/>"
        )
    }

    fn legend(&self, f: &mut impl Write) -> fmt::Result {
        let item = |f: &mut dyn Write, x: f64, swatch: &str, text: &str| {
            writeln!(f, "<g transform=\"translate({x} 56)\">{swatch}<text x=\"28\" y=\"9\">{text}</text></g>")
        };
        let swatch = |fill: &str| format!("<rect width=\"22\" height=\"10\" rx=\"2\" {fill}/>");
        let solid = |colour: &str| swatch(&format!("fill=\"{colour}\""));
        item(f, LEFT, &solid(RENEWAL), "renewal (login)")?;
        item(f, LEFT + 150.0, &solid(WAITING), "waiting")?;
        item(f, LEFT + 232.0, &solid(colour(2)), "in flight, coloured by generation")?;
        let rejected = format!(
            "{}<path d=\"M14 1l8 8m0 -8l-8 8\" class=\"cross\"/>",
            swatch(&format!("fill=\"{}\" fill-opacity=\"0.35\"", colour(2)))
        );
        item(f, LEFT + 538.0, &rejected, "rejected: the session had expired, replayed")
    }

    fn axis(&self, f: &mut impl Write, bottom: f64) -> fmt::Result {
        let end = self.end.as_millis() as usize;
        let step =
            [10, 20, 50, 100, 200, 500, 1000].into_iter().find(|step| end / step <= 12).unwrap_or(2000);
        for tick in (0..=end).step_by(step) {
            let x = self.x(Duration::from_millis(tick as u64));
            writeln!(f, "<path d=\"M{x:.1} {:.1}V{bottom:.1}\" class=\"grid\"/>", TOP - 6.0)?;
            let text = if tick == 0 { String::from("0 ms") } else { tick.to_string() };
            writeln!(
                f,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            )?;
        }
        Ok(())
    }
}

/// Formats the timeline as an SVG with a background, so that it is readable on all pages.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bottom = TOP + ROW_HEIGHT * self.rows.len() as f64 + 4.0;
        let height = bottom + 32.0;
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#2f3640\" role=\"img\">\n\
             <title>{} requests of one session, with logins that are valid for {PAGES_PER_LOGIN} pages each</title>\n\
             <style>.grid {{ stroke: #e4e7eb }} .cross {{ stroke: #b00020; stroke-width: 1.8; fill: none }} \
             .small {{ font-size: 10px; fill: #66707c }}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#c9d1d9\"/>\n\
             <text x=\"{LEFT}\" y=\"34\" font-size=\"16\" font-weight=\"600\">{} requests of one session, {IN_FLIGHT} in flight; \
             a login is valid for {PAGES_PER_LOGIN} pages</text>",
            self.rows.len(),
            WIDTH - 1.0,
            height - 1.0,
            self.rows.len(),
        )?;
        self.legend(f)?;
        self.axis(f, bottom)?;
        for (text, y) in [("renewals", 97.0), ("generations", 121.0)] {
            writeln!(f, "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{text}</text>", LEFT - 10.0)?;
        }
        for renewal in &self.renewals {
            self.bar(f, renewal, 86.0, 14.0, &format!("fill=\"{RENEWAL}\""))?;
        }
        for bar in &self.generations {
            let Part::Sent(generation) = bar.0 else { continue };
            self.bar(f, bar, 110.0, 14.0, &format!("fill=\"{}\"", colour(generation)))?;
            let middle = f64::midpoint(self.x(bar.1), self.x(bar.2));
            writeln!(
                f,
                "<text x=\"{middle:.1}\" y=\"121\" text-anchor=\"middle\" fill=\"#ffffff\" font-weight=\"600\">{generation}</text>"
            )?;
        }
        let mut crosses = Vec::new();
        for (row, (number, bars)) in self.rows.iter().enumerate() {
            let top = TOP + ROW_HEIGHT * row as f64;
            writeln!(
                f,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" class=\"small\">request {}</text>",
                LEFT - 10.0,
                top + 8.5,
                number + 1
            )?;
            for bar in bars {
                match bar.0 {
                    Part::Waiting => {
                        self.bar(f, bar, top, ROW_HEIGHT - 3.0, &format!("fill=\"{WAITING}\""))?
                    }
                    Part::Sent(generation) => {
                        self.bar(f, bar, top, ROW_HEIGHT - 3.0, &format!("fill=\"{}\"", colour(generation)))?;
                    }
                    Part::Rejected(generation) => {
                        let fill = format!("fill=\"{}\" fill-opacity=\"0.35\"", colour(generation));
                        self.bar(f, bar, top, ROW_HEIGHT - 3.0, &fill)?;
                        crosses.push((self.x(bar.2) - 4.0, top + 1.0));
                    }
                }
            }
        }
        // Drawn above all bars, because each mark is on the border of two.
        for (x, y) in crosses {
            writeln!(f, "<path d=\"M{x:.1} {y:.1}l8 8m0 -8l-8 8\" class=\"cross\"/>")?;
        }
        writeln!(f, "</svg>")
    }
}
