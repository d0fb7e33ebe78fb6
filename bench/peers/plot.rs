//! A picture of the medians: bars in groups, as plain SVG.
//!
//! **Invariant:** the bars of a group share one scale, which begins at 0; what was not measured has no bar.

use std::fmt::Write as _;

use crate::figure::{Figure, Metric, Serve, Subject};
use crate::guests::Foreign;
use crate::report::{Readings, number};

const WIDTH: f64 = 900.0;
/// Where bars begin, after their names.
const LEFT: f64 = 420.0;
/// The longest bar; its number stands behind it.
const BAR: f64 = 410.0;
const ROW: f64 = 22.0;
const TITLE: f64 = 40.0;
const OURS: &str = "#2563a8";
const THEIRS: &str = "#9aa5b1";

/// A group of bars.
struct Group {
    title: String,
    metric: Metric,
    subjects: Vec<Subject>,
}

fn groups() -> Vec<Group> {
    let cpu = |title: &str, subjects: Vec<Subject>| Group {
        title: title.to_owned(),
        metric: Metric::Cpu,
        subjects,
    };
    let mut groups = vec![
        cpu(
            "HTTP hello, 16 connections: server CPU, µs/request",
            vec![
                Subject::Hello,
                Subject::Serve(Serve::Reuse),
                Subject::Serve(Serve::Tuned),
                Subject::Serve(Serve::Default),
            ],
        ),
        cpu(
            "Typed echo of 1 KB of JSON: CPU, µs/call",
            vec![
                Subject::Echo,
                Subject::Axum,
                Subject::FastLoop(1),
                Subject::FastLoop(2),
                Subject::Loop(1),
                Subject::Loop(2),
            ],
        ),
    ];
    let pairs = Foreign::ALL.map(|which| [Subject::Foreign(which), Subject::ForeignLoop(which)]);
    groups.push(cpu("JavaScript and Python: CPU, µs/call", pairs.concat()));
    groups.push(cpu(
        "Durable echo: CPU, µs/execution",
        vec![
            Subject::Durable,
            Subject::Commits,
            Subject::Restate(2),
            Subject::Restate(24),
            Subject::Obelisk,
        ],
    ));
    groups
}

/// Draws what was measured.
pub(crate) fn svg(readings: &Readings<Figure>) -> String {
    let mut drawn = String::new();
    let mut y = 0.0;
    for group in groups() {
        let bars: Vec<(Subject, f64)> = group
            .subjects
            .iter()
            .filter_map(|subject| {
                let median = readings.median(Figure(*subject, group.metric))?;
                Some((*subject, median))
            })
            .collect();
        if bars.is_empty() {
            continue;
        }
        y += TITLE;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            drawn,
            r#"<text x="10" y="{:.0}" font-weight="bold">{}</text>"#,
            y - 12.0,
            escaped(&group.title)
        );
        let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        for (subject, value) in bars {
            bar(&mut drawn, subject, value, BAR * value / most, y);
            y += ROW;
        }
    }
    let height = y + 14.0;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0}" height="{height:.0}" viewBox="0 0 {WIDTH:.0} {height:.0}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
{drawn}</svg>
"#
    )
}

fn bar(drawn: &mut String, subject: Subject, value: f64, width: f64, y: f64) {
    let words = subject.words().replace('`', "");
    let color = match words.starts_with("Pelton") {
        true => OURS,
        false => THEIRS,
    };
    let _ = writeln!(
        drawn,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text>
<rect x="{LEFT:.0}" y="{:.0}" width="{width:.1}" height="{:.0}" fill="{color}"/>
<text x="{:.1}" y="{:.0}">{}</text>"#,
        LEFT - 8.0,
        y + 12.0,
        escaped(&words),
        y,
        ROW - 6.0,
        LEFT + width + 6.0,
        y + 12.0,
        number(value)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
