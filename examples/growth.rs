//! Draws how the cost grows with domains, cookies, sessions, waiters and layers, from the results
//! of criterion.
//!
//! `cargo bench --bench open_path --bench gate --bench sessions --bench end_to_end && cargo run
//! --release --features plots --example growth` writes `docs/growth.svg`. Two arguments replace the
//! directory of criterion and the path of the picture.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use plotters::{coord::Shift, prelude::*};

type Drawn = Result<(), Box<dyn Error>>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 181), RGBColor(0, 0, 0), RGBColor(220, 50, 32), RGBColor(230, 159, 0)];

fn main() -> Drawn {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let folder = arguments.next().unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        target.join("criterion")
    });
    let file = arguments.next().unwrap_or_else(|| "docs/growth.svg".into());

    let root = SVGBackend::new(&file, (1200, 1080)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((3, 2));
    // The cost beyond that of the bare service in the same group.
    let added = |group: &str, name: &str| -> Result<f64, Box<dyn Error>> {
        Ok((median(&folder, &[group, name])? - median(&folder, &[group, "bare"])?).max(1.0))
    };
    let stacks = ["session", "whole", "reqwest", "cookie_store"];
    let growth = |xs: &[u32], group: &dyn Fn(u32) -> String| -> Result<Vec<Line>, Box<dyn Error>> {
        let line = |name: &&str| {
            let points = xs.iter().map(|&x| Ok((f64::from(x), added(&group(x), name)?)));
            Ok(((*name).to_owned(), points.collect::<Result<_, Box<dyn Error>>>()?))
        };
        stacks.iter().map(line).collect()
    };
    lines(
        &panels[0],
        "Domains in the jar (5 cookies match)",
        "ns added to a request",
        growth(&[1, 100, 10_000], &|domains| format!("growth_D{domains}_k5"))?,
    )?;
    lines(
        &panels[1],
        "Cookies that match (1 domain)",
        "ns added to a request",
        growth(&[1, 5, 20], &|cookies| format!("growth_D1_k{cookies}"))?,
    )?;

    let of_values = |group: &str, names: &[&str], xs: &[u32], each: &dyn Fn(f64, f64) -> f64| {
        let line = |name: &&str| {
            let point = |&x: &u32| {
                let x = f64::from(x);
                Ok((x, each(median(&folder, &[group, name, &format!("{x}")])?, x)))
            };
            Ok(((*name).to_owned(), xs.iter().map(point).collect::<Result<_, Box<dyn Error>>>()?))
        };
        names.iter().map(line).collect::<Result<Vec<Line>, Box<dyn Error>>>()
    };
    let bare = median(&folder, &["random-session", "bare"])?;
    let sessions =
        of_values("random-session", &["session"], &[10_000, 100_000, 1_000_000], &|ns, _| ns - bare)?;
    lines(&panels[2], "Sessions (one at random)", "ns added to a request", sessions)?;
    let released =
        of_values("gate-release", &["flag", "flag-deadline", "gate"], &[100, 10_000, 100_000], &|ns, x| {
            ns / x
        })?;
    lines(&panels[3], "Waiters released together", "ns for each", released)?;

    let group = "layers_D1_k5";
    let names = ["session", "session-profile", "gate-no-replays", "gate-replays", "redirects-alone", "whole"];
    let heights = names.map(|name| added(group, name).map(|ns| (name.to_owned(), ns)));
    bars(
        &panels[4],
        "Layers (1 domain, 5 cookies)",
        "ns added to a request",
        heights.into_iter().collect::<Result<_, _>>()?,
    )?;
    let group = "end-to-end_no-set-cookie_D1_k5";
    let names = ["bare", "session", "whole", "reqwest"];
    let heights = names.map(|name| median(&folder, &[group, name]).map(|ns| (name.to_owned(), ns)));
    bars(
        &panels[5],
        "End to end (hyper, 64 in flight)",
        "ns of the client's thread",
        heights.into_iter().collect::<Result<_, _>>()?,
    )?;
    root.present()?;
    println!("{}", file.display());
    Ok(())
}

/// A name and its points.
type Line = (String, Vec<(f64, f64)>);

/// The median that criterion has stored, in nanoseconds.
fn median(folder: &Path, place: &[&str]) -> Result<f64, Box<dyn Error>> {
    let path = place.iter().fold(folder.to_owned(), |path, part| path.join(part)).join("new/estimates.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    Ok(estimates["median"]["point_estimate"].as_f64().ok_or("an estimate without a median")?)
}

/// Both axes are logarithmic.
fn lines(panel: &Panel<'_>, title: &str, unit: &str, lines: Vec<Line>) -> Drawn {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let max = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN, f64::max);
    let min = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (min(|point| point.0) * 0.9..max(|point| point.0) * 1.1).log_scale(),
            (min(|point| point.1) * 0.6..max(|point| point.1) * 3.0).log_scale(),
        )?;
    let label = |value: &f64| match *value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value:.0}"),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .y_desc(unit)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

fn bars(panel: &Panel<'_>, title: &str, unit: &str, bars: Vec<(String, f64)>) -> Drawn {
    let max = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..bars.len() as f64, -max * 0.12..max * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_desc(unit)
        .y_label_formatter(&|value| if *value < 0.0 { String::new() } else { format!("{value:.0}") })
        .label_style(("sans-serif", 14))
        .draw()?;
    for (at, (name, height)) in bars.iter().enumerate() {
        let at = at as f64;
        let bar = Rectangle::new([(at + 0.15, 0.0), (at + 0.85, *height)], COLOURS[0].filled());
        chart.draw_series([bar])?;
        let value = Text::new(format!("{height:.0}"), (at + 0.3, height + max * 0.06), ("sans-serif", 14));
        chart.draw_series([value])?;
        // Below the bar, in the space that the range reserves for it.
        chart.draw_series([Text::new(name.clone(), (at + 0.1, -max * 0.03), ("sans-serif", 11))])?;
    }
    Ok(())
}
