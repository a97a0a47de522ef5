//! Writes the table of `docs/performance.md` from the latest measurements: goals, results and
//! baselines.
//!
//! `cargo run --release --example goals -- measure` first runs all benchmarks, which takes most of
//! an hour on an otherwise idle machine. Each benchmark prints its results, including those that
//! only it can measure. Without `measure`, the table is written from `benches/instructions.txt` and
//! the results that criterion has stored.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

type Outcome = Result<(), Box<dyn Error>>;

/// The parts of a measurement, as arguments of cargo.
const PARTS: [&str; 12] = [
    "bench --bench instructions -- --save",
    "bench --bench instructions --all-features",
    "test --release --test allocations",
    "bench --bench open_path",
    "bench --bench cookies",
    "bench --bench gate",
    "bench --bench sessions",
    "bench --bench end_to_end",
    "bench --bench threads",
    "bench --bench pool",
    "bench --bench beside_scrapy",
    "run --release --example scale",
];

fn main() -> Outcome {
    if env::args().any(|argument| argument == "measure") {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        for part in PARTS {
            println!("\n== cargo {part}");
            let ended = Command::new(&cargo).args(part.split(' ')).status()?;
            if !ended.success() {
                return Err(format!("cargo {part}: {ended}").into());
            }
        }
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let measured = Measured { counts: counts()?, criterion: target.join("criterion") };
    println!("\n{:<4} {:<52} {:>22} {:>16}   baseline", "", "", "goal", "reached");
    instructions(&measured)?;
    times(&measured);
    println!(
        "The bytes of P5 and P7, and P8, P10 and P11, are printed by `scale`, `gate`, `threads` and `beside_scrapy`."
    );
    Ok(())
}

struct Measured {
    counts: BTreeMap<String, f64>,
    criterion: PathBuf,
}

fn row(goal: &str, what: &str, aim: &str, reached: &str, baseline: &str) {
    println!("{goal:<4} {what:<52} {aim:>22} {reached:>16}   {baseline}");
}

fn counts() -> Result<BTreeMap<String, f64>, Box<dyn Error>> {
    let text = fs::read_to_string("benches/instructions.txt")?;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(lines.filter_map(|(name, count)| Some((name.trim().to_owned(), count.parse().ok()?))).collect())
}

impl Measured {
    /// Returns the instructions of one scenario minus those of another.
    fn added(&self, name: &str, base: &str) -> Result<f64, Box<dyn Error>> {
        let count = |name: &str| self.counts.get(name).ok_or_else(|| format!("no count of {name}"));
        Ok(count(name)? - count(base)?)
    }

    /// Returns the median in nanoseconds, if it was measured.
    fn median(&self, bench: &str) -> Option<f64> {
        let path = Path::new(&self.criterion).join(bench).join("new/estimates.json");
        let estimates: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        estimates["median"]["point_estimate"].as_f64()
    }

    /// Returns the median minus that of the bare service.
    fn beyond_bare(&self, group: &str, name: &str) -> Option<f64> {
        Some(self.median(&format!("{group}/{name}"))? - self.median(&format!("{group}/bare"))?)
    }
}

fn instructions(measured: &Measured) -> Outcome {
    let added = |name: &str| measured.added(name, "bare");
    let peer = added("reqwest's cookie layer, D=1 k=5")?;
    let times = |count: f64| format!("reqwest's cookie layer × {:.1}", peer / count);
    let plain = added("session layer without info, D=1 k=5")?;
    let with_info = added("session layer, D=1 k=5")?;
    row("P1", "open path without `SessionInfo`", "2800 instructions", &format!("{plain}"), &times(plain));
    row("", "open path with `SessionInfo`", "", &format!("{with_info}"), &times(with_info));
    let by_http = added("bare, a name and a cookie set explicitly")?;
    row("", "of these, the name and the header by `http` alone", "", &format!("{by_http}"), "");
    for (name, aim) in [("no replays", "× 1.5 of P1"), ("replays", "× 2.5 of P1")] {
        let count = added(&format!("gate and session layer, {name}, D=1 k=5"))?;
        row(
            "P1b",
            &format!("with the gate, {name}"),
            aim,
            &format!("{count}"),
            &format!("× {:.2}", count / with_info),
        );
    }
    let (many, one) = (added("session layer, D=10000 k=5")?, with_info);
    let peers = added("reqwest's cookie layer, D=10000 k=5")?;
    let baseline = format!("reqwest's cookie layer × {:.0}", peers / many);
    row(
        "P2",
        "growth with domains, 1 to 10,000",
        "× 1.15; peer × 2500",
        &format!("× {:.2}", many / one),
        &baseline,
    );
    let (twenty, one) = (added("session layer, D=1 k=20")?, added("session layer, D=1 k=1")?);
    row("P3", "growth with cookies, 1 to 20, header cached", "× 1.06", &format!("× {:.2}", twenty / one), "");
    let same = measured.added("jar, the same Set-Cookie", "a target out of a uri")?;
    row(
        "P4",
        "the same Set-Cookie",
        "900 instructions",
        &format!("{same}"),
        "including the URL parsed from its URI",
    );
    for name in ["gate: acquire, open", "gate: try_acquire, open"] {
        let count = measured.counts.get(name).copied().unwrap_or_default();
        row("P6", name, "60 instructions", &format!("{count}"), "");
    }
    Ok(())
}

fn times(measured: &Measured) {
    let timed = |goal: &str, what: &str, aim: &str, reached: Option<(String, String)>| {
        let (reached, baseline) = reached.unwrap_or_else(|| ("not measured".into(), String::new()));
        row(goal, what, aim, &reached, &baseline);
    };
    let ns = |time: f64| format!("{time:.1} ns");
    let first = |cookies: u32| measured.median(&format!("rebuild/first/{cookies}"));
    let per_cookie = first(20).zip(first(1)).map(|(twenty, one)| (ns((twenty - one) / 19.0), String::new()));
    timed("P3", "rebuilding a header, per further cookie", "5 ns", per_cookie);
    let stored = |whose: &str| measured.median(&format!("set-cookie_k5/{whose}_changed-and-header"));
    let changed = stored("ours").zip(stored("cookie_store")).zip(stored("reqwest"));
    let changed = changed.map(|((ours, store), reqwest)| {
        (ns(ours), format!("cookie_store × {:.1}, reqwest × {:.1}", store / ours, reqwest / ours))
    });
    timed("P4", "a changed value and the new header", "250 ns", changed);
    let random = measured.beyond_bare("random-session", "session/1000000");
    timed(
        "P5",
        "random access to one of a million sessions",
        "700 ns",
        random.map(|time| (ns(time), String::new())),
    );
    let released = |name: &str| measured.median(&format!("gate-release/{name}/10000"));
    let release = released("gate").zip(released("flag")).zip(released("flag-deadline"));
    let release = release.map(|((gate, flag), deadline)| {
        (format!("× {:.2}", gate / flag), format!("× {:.2} of the flag with timeouts", gate / deadline))
    });
    timed("P7", "releasing 10,000 waiters", "× 1.25 of a flag", release);
    for (group, aim) in [
        ("end-to-end_no-set-cookie_D1_k5", "7 %"),
        ("end-to-end_no-set-cookie_D100_k5", "7 %"),
        ("end-to-end_set-cookie_D1_k5", "9 %"),
    ] {
        let share = |name: &str| {
            let bare = measured.median(&format!("{group}/bare"))?;
            Some(format!("{:.0} %", measured.beyond_bare(group, name)? / bare * 100.0))
        };
        let shares = share("session").zip(share("whole")).zip(share("reqwest"));
        let shares = shares.map(|((session, whole), reqwest)| {
            (session, format!("the whole stack {whole}, reqwest's layer {reqwest}"))
        });
        timed("P9", group, aim, shares);
    }
}
