//! What the measurements come to: medians over rounds, as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::allocations;
use crate::backends::Ready;
use crate::case::Unit;
use crate::course::{Measured, Round, Seat};
use crate::meter::Sample;

/// With more cores than this used by others, a round is left out.
const MAX_FOREIGN: f64 = 0.3;

/// A median and its range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }

    fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

/// Percentiles in microseconds, over all rounds that count.
#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    p50: f64,
    p99: f64,
    max: f64,
}

/// One seat's figures.
#[derive(Debug, Serialize)]
struct Figures {
    /// Messages a second.
    rate: Spread,
    /// Microseconds of the client's process a message.
    client_us: Spread,
    /// Microseconds of the server's process a message.
    server_us: Option<Spread>,
    times_us: Option<Times>,
    /// Allocations a message; only in the build that counts.
    allocations: Option<f64>,
}

/// One case of one backend and one size.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    backend: &'static str,
    server: String,
    case: &'static str,
    title: &'static str,
    body: usize,
    unit: Unit,
    /// Of one measurement.
    messages: u64,
    rounds: usize,
    /// Rounds in which others used more than 0.3 cores; they do not count, unless all are such.
    disturbed: usize,
    /// Cores that others used; unknown where the server's process is.
    foreign_cores: Option<Spread>,
    raw: Option<Figures>,
    longshore: Option<Figures>,
    /// The raw client without message ids: information.
    raw_without_ids: Option<Figures>,
    /// longshore to raw, of rates, or of the median times.
    ratio: Option<Spread>,
    /// Raw to raw; where there is none, longshore to longshore.
    control: Option<Spread>,
    /// Each round's ratio and control, those that do not count included.
    each: Vec<(Option<f64>, Option<f64>)>,
}

impl Row {
    pub(crate) fn new(ready: &Ready, measured: &Measured) -> Self {
        let Measured { case, size, rounds } = measured;
        let undisturbed: Vec<&Round> = rounds.iter().filter(|round| !is_disturbed(round)).collect();
        let disturbed = rounds.len() - undisturbed.len();
        let counted = if undisturbed.is_empty() { rounds.iter().collect() } else { undisturbed };
        let base =
            if ready.raw.iter().any(|raw| raw.does(case.work)) { Seat::Raw } else { Seat::Ours };
        let value = |round: &Round, seat| find(round, seat).and_then(|one| value(case.unit, one));
        let divide =
            |round: &Round, above, below| Some(value(round, above)? / value(round, below)?);
        let ratio = |round: &Round| divide(round, Seat::Ours, Seat::Raw);
        let control = |round: &Round| divide(round, Seat::Again, base);
        let foreign = rounds.iter().flatten().filter_map(|(_, sample)| sample.foreign_cores());
        let figures = |seat| Figures::of(counted.iter().filter_map(|round| find(round, seat)));
        Self {
            backend: ready.backend.name,
            server: ready.version.clone(),
            case: case.id,
            title: case.title,
            body: *size,
            unit: case.unit,
            messages: rounds.iter().flatten().map(|(_, one)| one.messages).next().unwrap_or(0),
            rounds: rounds.len(),
            disturbed,
            foreign_cores: Spread::of(foreign),
            raw: figures(Seat::Raw),
            longshore: figures(Seat::Ours),
            raw_without_ids: figures(Seat::Plain),
            ratio: Spread::of(counted.iter().filter_map(|round| ratio(round))),
            control: Spread::of(counted.iter().filter_map(|round| control(round))),
            each: rounds.iter().map(|round| (ratio(round), control(round))).collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let dash = || "–".to_owned();
        let speed = |figures: &Option<Figures>| {
            figures.as_ref().map_or_else(dash, |figures| figures.speed(self.unit))
        };
        let spread = |spread: Option<Spread>| spread.map_or_else(dash, Spread::text);
        let cpu = |pick: fn(&Figures) -> Option<Spread>| {
            let text = |figures: &Option<Figures>| {
                let spread = figures.as_ref().and_then(pick);
                spread.map_or_else(dash, |spread| format!("{:.2}", spread.median))
            };
            format!("{} / {}", text(&self.raw), text(&self.longshore))
        };
        vec![
            self.backend.to_owned(),
            self.title.to_owned(),
            self.body.to_string(),
            speed(&self.raw),
            speed(&self.longshore),
            spread(self.ratio),
            spread(self.control),
            cpu(|figures| Some(figures.client_us)),
            cpu(|figures| figures.server_us),
            speed(&self.raw_without_ids),
            self.quality(),
        ]
    }

    /// How many rounds count.
    fn quality(&self) -> String {
        match (self.foreign_cores, self.disturbed) {
            (None, _) => format!("{}, unwatched", self.rounds),
            (_, 0) => self.rounds.to_string(),
            (_, all) if all == self.rounds => format!("all {all} disturbed *"),
            (_, some) => format!("{} of {}", self.rounds - some, self.rounds),
        }
    }
}

impl Figures {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Self> {
        let samples: Vec<_> = samples.collect();
        let all = |pick: fn(&Sample) -> f64| Spread::of(samples.iter().map(|one| pick(one)));
        let allocations = all(Sample::allocations_each).map(|spread| spread.median);
        Some(Self {
            rate: all(Sample::rate)?,
            client_us: all(Sample::cpu_each)?,
            server_us: Spread::of(samples.iter().filter_map(|one| one.server_each())),
            times_us: Times::of(samples.iter().filter_map(|one| one.times.as_ref())),
            allocations: allocations.filter(|_| allocations::COUNTED),
        })
    }

    fn speed(&self, unit: Unit) -> String {
        match (unit, self.times_us) {
            (Unit::Time, Some(Times { p50, p99, max })) => {
                format!("p50 {p50:.0}, p99 {p99:.0}, max {max:.0} µs")
            }
            _ => format!("{:.1} k/s", self.rate.median / 1e3),
        }
    }
}

impl Times {
    fn of<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Option<Self> {
        let sum = histograms.cloned().reduce(|mut sum, one| {
            sum += one;
            sum
        })?;
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile| us(sum.value_at_quantile(quantile));
        Some(Self { p50: at(0.5), p99: at(0.99), max: us(sum.max()) })
    }
}

fn find(round: &Round, seat: Seat) -> Option<&Sample> {
    round.iter().find(|(at, _)| *at == seat).map(|(_, sample)| sample)
}

fn value(unit: Unit, sample: &Sample) -> Option<f64> {
    match unit {
        Unit::Rate => Some(sample.rate()),
        Unit::Time => sample.times.as_ref().map(|times| times.value_at_quantile(0.5) as f64),
    }
}

fn is_disturbed(round: &Round) -> bool {
    round.iter().any(|(_, sample)| sample.foreign_cores().is_some_and(|cores| cores > MAX_FOREIGN))
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> Table {
    let heads = [
        "backend",
        "case",
        "body, B",
        "raw",
        "longshore",
        "ratio",
        "control",
        "client µs/msg, raw / ours",
        "server µs/msg, raw / ours",
        "raw without ids",
        "rounds",
    ];
    filled(&heads, rows.iter().map(Row::cells))
}

/// Allocations, in the build that counts them.
pub(crate) fn allocations(rows: &[Row]) -> Table {
    let text = |figures: &Option<Figures>| {
        let count = figures.as_ref().and_then(|figures| figures.allocations);
        count.map_or_else(|| "–".to_owned(), |count| format!("{count:.2}"))
    };
    let cells = |row: &Row| {
        let (raw, ours) = (text(&row.raw), text(&row.longshore));
        vec![row.backend.to_owned(), row.title.to_owned(), row.body.to_string(), raw, ours]
    };
    let heads = ["backend", "case", "body, B", "raw, allocations/msg", "longshore"];
    filled(&heads, rows.iter().map(cells))
}

fn filled(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(heads.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(odd.text(), "2.00 (1.00–3.00)");
    }
}
