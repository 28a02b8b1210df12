//! What is made of the measurements: rows beside the goals, the raw figures as CSV, and a plot.

use std::{fmt::Write as _, fs, path::Path};

use super::contender::Contender;
use crate::row::Row;

/// One raw figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub what: &'static str,
    /// Of whom.
    pub contender: &'static str,
    /// In which round, from one.
    pub round: usize,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// All raw figures of a run.
#[derive(Debug, Default)]
pub struct Figures(pub Vec<Figure>);

/// Median, lowest and highest.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

/// The value below which this share of sorted values lies.
#[must_use]
pub fn percentile(sorted: &[f64], per_thousand: usize) -> f64 {
    let at = (sorted.len().saturating_sub(1) * per_thousand).div_ceil(1_000);
    sorted.get(at).copied().unwrap_or_default()
}

impl Figures {
    /// Notes one.
    pub fn note(
        &mut self,
        what: &'static str,
        contender: Contender,
        round: usize,
        value: f64,
        unit: &'static str,
    ) {
        self.0.push(Figure { what, contender: contender.name(), round, value, unit });
    }

    /// The spread of one figure over the rounds.
    #[must_use]
    pub fn spread(&self, what: &str, contender: Contender) -> Option<Spread> {
        let mut values: Vec<f64> = self
            .0
            .iter()
            .filter(|figure| figure.what == what && figure.contender == contender.name())
            .map(|figure| figure.value)
            .collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        Some(Spread { median: percentile(&values, 500), low, high })
    }

    /// The best median of the scored peers.
    #[must_use]
    pub fn best_peer(&self, what: &str) -> Option<f64> {
        let peers = Contender::ALL.into_iter().filter(|it| it.is_scored() && *it != Contender::Ours);
        peers.filter_map(|peer| self.spread(what, peer)).map(|spread| spread.median).reduce(f64::max)
    }

    /// A row for each contender: the median, with the range in its name.
    #[must_use]
    pub fn rows(&self, what: &str, unit: &str) -> Vec<Row> {
        let row = |contender: Contender| {
            let Spread { median, low, high } = self.spread(what, contender)?;
            let name = format!("jobs: {what}, {} ({low:.4} to {high:.4})", contender.name());
            Some(Row::new(&name, median, unit))
        };
        Contender::ALL.into_iter().filter_map(row).collect()
    }

    /// Writes the raw figures and the plot into a directory.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut csv = String::from("what,contender,round,value,unit\n");
        for Figure { what, contender, round, value, unit } in &self.0 {
            let _ = writeln!(csv, "{what},{contender},{round},{value},{unit}");
        }
        fs::write(directory.join("jobs.csv"), csv)?;
        fs::write(directory.join("jobs.svg"), self.plot())
    }

    /// Bars on a logarithmic scale, with the range of the rounds as a line.
    fn plot(&self) -> String {
        const PLOTS: [&str; 2] = ["jobs per CPU-second no-op", "jobs per CPU-second two effects"];
        const LEFT: f64 = 190.0;
        const WIDTH: f64 = 420.0;
        let place = |value: f64| LEFT + (value.max(10.0).log10() - 1.0) / 4.0 * WIDTH;
        let mut body = String::new();
        let mut y = 20.0;
        for what in PLOTS {
            let _ = writeln!(body, "<text x='10' y='{y}' font-weight='bold'>{what}, median and range</text>");
            y += 14.0;
            let top = y;
            for contender in Contender::ALL {
                let Some(Spread { median, low, high }) = self.spread(what, contender) else { continue };
                let colour = if contender == Contender::Ours { "#2f6f4f" } else { "#8a9aa5" };
                let (middle, end) = (y + 9.0, place(median));
                let _ = writeln!(
                    body,
                    "<text x='{:.1}' y='{:.1}' text-anchor='end'>{}</text>\
                     <rect x='{LEFT}' y='{y}' width='{:.1}' height='18' fill='{colour}'/>\
                     <line x1='{:.1}' x2='{:.1}' y1='{middle}' y2='{middle}' stroke='black'/>\
                     <text x='{:.1}' y='{:.1}'>{median:.0}</text>",
                    LEFT - 6.0,
                    y + 13.0,
                    contender.name(),
                    end - LEFT,
                    place(low),
                    place(high),
                    place(high) + 6.0,
                    y + 13.0,
                );
                y += 22.0;
            }
            for mark in [10.0_f64, 100.0, 1_000.0, 10_000.0, 100_000.0] {
                let x = place(mark);
                let _ = writeln!(
                    body,
                    "<line x1='{x}' x2='{x}' y1='{top}' y2='{y}' stroke='#ccc' stroke-dasharray='2'/>\
                     <text x='{x}' y='{:.1}' text-anchor='middle' fill='#666'>{mark}</text>",
                    y + 12.0
                );
            }
            y += 44.0;
        }
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='700' height='{y}' font-family='sans-serif' font-size='12'>\n\
             <rect width='100%' height='100%' fill='white'/>\n{body}</svg>\n"
        )
    }
}
