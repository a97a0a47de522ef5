//! The session layer beside the middleware that it comes from: Scrapy's `CookiesMiddleware`, which its sessions stand on.
//!
//! Both do the same: a request of one session to a page that five cookies go to, and an answer that sets none. What is told is what
//! each adds to making the request and the answer, in turns within one run, by the CPU time of one thread.
//!
//! `PYTHON=folder/bin/python cargo bench --bench beside_scrapy`, where that Python has Scrapy:
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

/// Turns of which each has the four kinds of rounds.
const TURNS: usize = 15;
/// Rounds of ours for one of the other's, so that each takes about as long.
const OURS: u32 = 100;

fn main() -> ExitCode {
    // Under `cargo test` it is enough that it runs.
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
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/beside_scrapy.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{python}: {error}"))?;
    let mut asks = child.stdin.take().ok_or("the input is ours")?;
    let mut answers = BufReader::new(child.stdout.take().ok_or("the output is ours")?).lines();
    let mut answer =
        || answers.next().ok_or("the script ended early")?.map_err(Box::<dyn std::error::Error>::from);

    let version = answer()?;
    if let Some(missing) = version.strip_prefix("missing ") {
        println!(
            "Scrapy is missing, and nothing was compared: {missing}\n\
             python3 -m venv folder && folder/bin/pip install scrapy\n\
             PYTHON=folder/bin/python cargo bench --bench beside_scrapy"
        );
        return Ok(());
    }
    let mut theirs = |kind: &str| -> Result<Duration, Box<dyn std::error::Error>> {
        writeln!(asks, "{kind} {rounds}")?;
        Ok(Duration::from_nanos(answer()?.trim().parse()?) / rounds)
    };

    let (sessions, _) = support::sessions(1, 5);
    let mut bare = support::boxed(support::Bare::new(Sets::Nothing));
    let mut telling = support::session_stack(&sessions, Sets::Nothing);
    let plain = SessionLayer::new(&sessions).without_info();
    let mut plain = support::boxed(plain.layer(support::Bare::new(Sets::Nothing)));
    let (mut scrapy, mut ours, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let without = theirs("bare")?;
        scrapy.push(theirs("middleware")?.saturating_sub(without));
        let without = time(&mut bare, false, rounds * OURS);
        ours.push(time(&mut plain, true, rounds * OURS).saturating_sub(without));
        told.push(time(&mut telling, true, rounds * OURS).saturating_sub(without));
    }
    // It ends when nobody asks any more.
    drop(asks);
    child.wait()?;

    let scrapy = median(&mut scrapy);
    println!("{version}: its CookiesMiddleware adds {scrapy:?} to a request");
    // The middleware tells the program nothing: what does the same is the layer without the info.
    for (name, mut times) in [("the session layer", ours), ("the same with the info", told)] {
        let ours = median(&mut times);
        println!("{name} {ours:?}: × {:.0}", scrapy.as_secs_f64() / ours.as_secs_f64());
    }
    Ok(())
}

/// What one request takes, naming its session if it is to.
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
