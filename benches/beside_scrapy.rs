//! Compares the session layer with Scrapy's `CookiesMiddleware`, on which scrapy-sessions builds.
//!
//! Both handle a request of one session for a page with five cookies, and a response that sets
//! none. The results are the CPU time of one thread that each adds to creating the request and the
//! response. Both are measured alternately within one run.
//!
//! `PYTHON=folder/bin/python cargo bench --bench beside_scrapy` needs a Python with Scrapy:
//! `python3 -m venv folder && folder/bin/pip install scrapy`.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::{
    env,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use support::{Sets, Stack, time::thread_time};
use tower::Layer;
use tower_client_sessions::{SessionId, SessionLayer};

/// The number of turns; each measures all four kinds of rounds.
const TURNS: usize = 15;
/// Our rounds per round of Scrapy, so that both take about as long.
const OURS: u32 = 100;

fn main() -> ExitCode {
    // Under `cargo test` the bench only has to run.
    let (turns, rounds) = match env::args().any(|argument| argument == "--bench") {
        true => (TURNS, 2_000),
        false => (1, 10),
    };
    match run(turns, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(turns: usize, rounds: u32) -> Result<(), Box<dyn std::error::Error>> {
    let python = env::var("PYTHON").unwrap_or_else(|_| String::from("python3"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/beside_scrapy.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{python}: {error}"))?;
    let mut input = child.stdin.take().ok_or("the script has no input")?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("the script has no output")?).lines();
    let mut read_line =
        || lines.next().ok_or("the script ended early")?.map_err(Box::<dyn std::error::Error>::from);

    let version = read_line()?;
    if let Some(missing) = version.strip_prefix("missing ") {
        println!(
            "skipped: Scrapy is not installed ({missing})\n\
             python3 -m venv folder && folder/bin/pip install scrapy\n\
             PYTHON=folder/bin/python cargo bench --bench beside_scrapy"
        );
        return Ok(());
    }
    let mut theirs = |kind: &str| -> Result<Duration, Box<dyn std::error::Error>> {
        writeln!(input, "{kind} {rounds}")?;
        Ok(Duration::from_nanos(read_line()?.trim().parse()?) / rounds)
    };

    let (sessions, _) = support::sessions(1, 5);
    let mut bare = support::boxed(support::Bare::new(Sets::Nothing));
    let mut with_info = support::session_stack(&sessions, Sets::Nothing);
    let plain = SessionLayer::new(&sessions).without_info();
    let mut plain = support::boxed(plain.layer(support::Bare::new(Sets::Nothing)));
    let (mut scrapy, mut ours, mut ours_with_info) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let without = theirs("bare")?;
        scrapy.push(theirs("middleware")?.saturating_sub(without));
        let without = time(&mut bare, false, rounds * OURS);
        ours.push(time(&mut plain, true, rounds * OURS).saturating_sub(without));
        ours_with_info.push(time(&mut with_info, true, rounds * OURS).saturating_sub(without));
    }
    // The script exits at the end of its input.
    drop(input);
    child.wait()?;

    let scrapy = median(&mut scrapy);
    println!("{version}: its CookiesMiddleware adds {scrapy:?} to a request");
    // The middleware returns no info to the program: the layer without info is its equivalent.
    for (name, mut times) in
        [("the session layer without info", ours), ("the session layer with info", ours_with_info)]
    {
        let ours = median(&mut times);
        println!("{name} {ours:?}: × {:.0}", scrapy.as_secs_f64() / ours.as_secs_f64());
    }
    Ok(())
}

/// Returns the CPU time of one request, with a session name if `named`.
fn time(stack: &mut Stack, named: bool, rounds: u32) -> Duration {
    let page = support::page(1);
    let start = thread_time();
    for _ in 0..rounds {
        let mut request = support::request(&page);
        if named {
            request.extensions_mut().insert(SessionId::from(support::NAME));
        }
        drop(black_box(stack(request)));
    }
    thread_time().saturating_sub(start) / rounds
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
