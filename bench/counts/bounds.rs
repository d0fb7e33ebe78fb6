//! What was counted beside what it may come to, and the file that says so.
//!
//! The file is the part of TOML that it needs: comments, `[sections]`, and a number or a text for each key.
//!
//! **Invariant:** a count without a bound and a bound without a count are failures, like a count that is beyond
//! its bound; writing bounds changes nothing but their lines.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result, ensure};

/// How far instructions may be from their bound, to either side, as a part of it.
pub(crate) const INSTRUCTIONS_OFF_MAX: f64 = 0.05;

/// What is counted: each has sections of its own in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Instructions, under callgrind
    Instructions,
    /// System calls, under strace
    SystemCalls,
}

/// One count: what, and in which phase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) kind: Kind,
    pub(crate) phase: String,
    /// The system call, or several that are counted together; nothing for instructions.
    pub(crate) call: String,
}

/// All counts of a run, or all bounds of the file.
pub(crate) type Counts = BTreeMap<Name, f64>;

/// What the file says.
#[derive(Debug, PartialEq)]
pub(crate) struct Bounds {
    /// Which tools made the bounds.
    pub(crate) made: BTreeMap<String, String>,
    pub(crate) counts: Counts,
}

/// The section that says which tools made the bounds.
const MADE: &str = "made";

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Instructions, Self::SystemCalls];

    fn section(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::SystemCalls => "system_calls",
        }
    }
}

impl Name {
    pub(crate) fn instructions(phase: &str) -> Self {
        Self {
            kind: Kind::Instructions,
            phase: phase.to_owned(),
            call: String::new(),
        }
    }

    pub(crate) fn system_call(phase: &str, call: &str) -> Self {
        Self {
            kind: Kind::SystemCalls,
            phase: phase.to_owned(),
            call: call.to_owned(),
        }
    }

    /// The section and the key that hold its bound.
    fn place(&self) -> (String, &str) {
        let section = self.kind.section();
        match self.kind {
            Kind::Instructions => (section.to_owned(), &self.phase),
            Kind::SystemCalls => (format!("{section}.{}", self.phase), &self.call),
        }
    }

    /// The count whose bound stands at this place.
    fn at(section: &str, key: &str) -> Option<Self> {
        if section == Kind::Instructions.section() {
            return Some(Self::instructions(key));
        }
        let phase = section.strip_prefix(Kind::SystemCalls.section())?;
        Some(Self::system_call(phase.strip_prefix('.')?, key))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Instructions => write!(f, "{}: instructions", self.phase),
            Kind::SystemCalls => write!(f, "{}: {}", self.phase, self.call),
        }
    }
}

/// One line of the file, without its comment.
enum Line<'a> {
    Nothing,
    Section(&'a str),
    Value(&'a str, &'a str),
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Result<Self> {
        // No text in the file has this sign in it.
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if let Some(section) = line.strip_prefix('[') {
            let section = section.strip_suffix(']').context("a section has no end")?;
            return Ok(Self::Section(section.trim()));
        }
        let (key, value) = line.split_once('=').context("neither section nor value")?;
        Ok(Self::Value(key.trim(), value.trim()))
    }
}

impl Bounds {
    /// Reads the file.
    ///
    /// # Errors
    /// A line is none, stands in no section that there is, or sets what is set already.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut bounds = Self {
            made: BTreeMap::new(),
            counts: Counts::new(),
        };
        let mut section = "";
        for (number, line) in text.lines().enumerate() {
            bounds
                .read_line(line, &mut section)
                .with_context(|| format!("line {}: {line}", number + 1))?;
        }
        Ok(bounds)
    }

    fn read_line<'a>(&mut self, line: &'a str, section: &mut &'a str) -> Result<()> {
        let (key, value) = match Line::read(line)? {
            Line::Nothing => return Ok(()),
            Line::Section(named) => {
                *section = named;
                return Ok(());
            }
            Line::Value(key, value) => (key, value),
        };
        let was_set = if *section == MADE {
            let text = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let text = text.context("a text stands in quotes")?.to_owned();
            self.made.insert(key.to_owned(), text).is_some()
        } else {
            let name = Name::at(section, key).context("no such section")?;
            let bound: f64 = value.replace('_', "").parse()?;
            ensure!(bound.is_finite() && bound >= 0.0, "no bound");
            self.counts.insert(name, bound).is_some()
        };
        ensure!(!was_set, "it is set twice");
        Ok(())
    }
}

/// Where a count stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    /// There is more of it than may be.
    Above,
    /// There is so much less of it that the bound does not hold it any more.
    Below,
    /// The file says nothing of it.
    Unbounded,
    /// The file has a bound for it.
    Uncounted,
}

/// A line of the report.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: Name,
    pub(crate) bound: Option<f64>,
    pub(crate) count: Option<f64>,
    pub(crate) verdict: Verdict,
}

/// Every count and every bound of these kinds, side by side.
pub(crate) fn compare(bounds: &Counts, counts: &Counts, kinds: &[Kind]) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for (name, bound) in bounds {
        rows.insert(name.clone(), (Some(*bound), None));
    }
    for (name, count) in counts {
        rows.entry(name.clone()).or_insert((None, None)).1 = Some(*count);
    }
    rows.into_iter()
        .filter(|(name, _)| kinds.contains(&name.kind))
        .map(|(name, (bound, count))| Row {
            verdict: match (bound, count) {
                (Some(bound), Some(count)) => judge(name.kind, bound, count),
                (None, _) => Verdict::Unbounded,
                (_, None) => Verdict::Uncounted,
            },
            name,
            bound,
            count,
        })
        .collect()
}

fn judge(kind: Kind, bound: f64, count: f64) -> Verdict {
    let (least, most) = match kind {
        Kind::Instructions => (
            bound * (1.0 - INSTRUCTIONS_OFF_MAX),
            bound * (1.0 + INSTRUCTIONS_OFF_MAX),
        ),
        // Which of these there are depends on what else the machine does: the slack is in the bound.
        Kind::SystemCalls => (0.0, bound),
    };
    if count > most {
        Verdict::Above
    } else if count < least {
        Verdict::Below
    } else {
        Verdict::Fits
    }
}

/// The table for people, and what is to be done about it.
///
/// # Errors
/// A row does not fit.
pub(crate) fn report(rows: &[Row]) -> Result<String, String> {
    let mut text = String::from("| count | bound | found | |\n|---|---|---|---|\n");
    let number = |number: Option<f64>, kind| match number {
        Some(number) => show(kind, number),
        None => "none".to_owned(),
    };
    for row in rows {
        let kind = row.name.kind;
        let verdict = match (row.verdict, row.bound, row.count) {
            (Verdict::Fits, _, _) => "fits".to_owned(),
            (Verdict::Above, Some(bound), Some(count)) => {
                format!("**above**{}", off(kind, bound, count))
            }
            (Verdict::Below, Some(bound), Some(count)) => {
                format!("**below**{}", off(kind, bound, count))
            }
            (Verdict::Unbounded, _, _) => "**no bound**".to_owned(),
            (Verdict::Above | Verdict::Below | Verdict::Uncounted, _, _) => {
                "**not counted**".to_owned()
            }
        };
        let (bound, count) = (number(row.bound, kind), number(row.count, kind));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {bound} | {count} | {verdict} |", row.name);
    }
    if rows.iter().all(|row| row.verdict == Verdict::Fits) {
        return Ok(text);
    }
    Err(text)
}

fn off(kind: Kind, bound: f64, count: f64) -> String {
    match kind {
        Kind::Instructions => format!(" by {:+.1} %", (count / bound - 1.0) * 100.0),
        Kind::SystemCalls => String::new(),
    }
}

/// The bounds of a run: of instructions what was counted, of system calls a little more.
pub(crate) fn bounds_of(counts: &Counts) -> Counts {
    let bound = |(name, count): (&Name, &f64)| {
        let bound = match name.kind {
            Kind::Instructions => count.round(),
            Kind::SystemCalls => (count * 110.0 + slack(&name.call)).ceil() / 100.0,
        };
        (name.clone(), bound)
    };
    counts.iter().map(bound).collect()
}

/// What a bound of system calls leaves room for beyond what was counted and a tenth of it, in each hundred calls. One
/// more in every call is always beyond it.
fn slack(call: &str) -> f64 {
    match call {
        // Whether somebody waits already when he is told depends on who runs when.
        "futex" => 50.0,
        // The allocator grows its heaps in steps.
        "mprotect" | "other" => 25.0,
        // How many commits share a checkpoint's depends on the disk.
        "fsync_per_commit" => 30.0,
        // How many calls share a commit depends on the disk and on who runs when.
        "commits" => 20.0,
        _ => 5.0,
    }
}

fn show(kind: Kind, number: f64) -> String {
    match kind {
        Kind::Instructions => format!("{number:.0}"),
        Kind::SystemCalls => format!("{number:.2}"),
    }
}

/// The file with other bounds of these kinds: all else in it stays as it is.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn rewritten(text: &str, new: &Bounds, kinds: &[Kind]) -> Result<String> {
    // What it says now makes sense.
    Bounds::read(text)?;
    let mut file = Rewriting {
        made: new.made.clone(),
        left: new.counts.clone(),
        ..Rewriting::default()
    };
    file.left.retain(|name, _| kinds.contains(&name.kind));
    for line in text.lines() {
        file.line(line, kinds)?;
    }
    file.finish()
}

/// The file on its way to other bounds.
#[derive(Default)]
struct Rewriting {
    text: String,
    /// The section that the last line belongs to.
    section: String,
    /// Where its last value ends.
    end: usize,
    /// Bounds and tools that have no line yet.
    left: Counts,
    made: BTreeMap<String, String>,
}

impl Rewriting {
    fn line(&mut self, line: &str, kinds: &[Kind]) -> Result<()> {
        match Line::read(line)? {
            Line::Nothing => self.keep(line),
            Line::Section(section) => {
                self.end_section();
                section.clone_into(&mut self.section);
                self.keep(line);
                self.end = self.text.len();
            }
            Line::Value(key, _) => {
                match self.value(key, kinds)? {
                    New::Same => self.keep(line),
                    New::None => {}
                    New::Value(value) => match line.split_once('#') {
                        Some((_, comment)) => self.keep(&format!("{key} = {value} #{comment}")),
                        None => self.keep(&format!("{key} = {value}")),
                    },
                }
                self.end = self.text.len();
            }
        }
        Ok(())
    }

    fn keep(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn value(&mut self, key: &str, kinds: &[Kind]) -> Result<New> {
        if self.section == MADE {
            let new = self.made.remove(key);
            return Ok(new.map_or(New::Same, |text| New::Value(format!("\"{text}\""))));
        }
        let name = Name::at(&self.section, key).context("no such section")?;
        if !kinds.contains(&name.kind) {
            return Ok(New::Same);
        }
        let new = self.left.remove(&name);
        Ok(new.map_or(New::None, |bound| New::Value(show(name.kind, bound))))
    }

    /// Adds what belongs to the section and had no line in it.
    fn end_section(&mut self) {
        let mut lines = String::new();
        if self.section == MADE {
            for (key, text) in std::mem::take(&mut self.made) {
                // Writing to a string cannot fail.
                let _ = writeln!(lines, "{key} = \"{text}\"");
            }
        }
        let section = &self.section;
        self.left.retain(|name, bound| {
            let (place, key) = name.place();
            if place == *section {
                let _ = writeln!(lines, "{key} = {}", show(name.kind, *bound));
            }
            place != *section
        });
        self.text.insert_str(self.end, &lines);
    }

    fn finish(mut self) -> Result<String> {
        self.end_section();
        while let Some(name) = self.left.keys().next() {
            // A section that the file has not.
            (self.section, _) = name.place();
            let _ = write!(self.text, "\n[{}]\n", self.section);
            self.end = self.text.len();
            self.end_section();
        }
        ensure!(self.made.is_empty(), "the file has no section [{MADE}]");
        Ok(self.text)
    }
}

/// What becomes of a value.
enum New {
    Same,
    /// It is not counted any more.
    None,
    Value(String),
}
