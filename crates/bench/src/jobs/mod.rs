//! Jobs, side by side: our engine on its embedded store and the job engines that people use, on the same machine, in one
//! run, with the same work and every commit synced. Rounds are interleaved, so that a neighbour's load meets all alike.

mod contender;
mod measure;
pub mod ours;
pub mod program;
mod raw;
mod report;
pub mod world;

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Duration};

use self::{
    contender::{Contender, Kit},
    measure::{Bench, BurnDown, Killed},
    program::Program,
    report::{Figures, percentile},
};
use crate::row::Row;

type Fault = Box<dyn std::error::Error + Send + Sync>;

const NOOP: &str = "jobs per CPU-second no-op";
const EFFECTS: &str = "jobs per CPU-second two effects";

/// How it is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Jobs of one burn-down.
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave the peers out.
    #[arg(long)]
    ours: bool,
    /// Only contenders with one of these, separated by commas, in their names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the peers are: a file that `cargo xtask bench jobs` makes.
    #[arg(long)]
    kit: Option<PathBuf>,
    /// A directory for the raw figures and the plot.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Jobs that are queued when memory is measured; none leaves that out.
    #[arg(long, default_value_t = 1_000_000)]
    queued: usize,
    /// How long, in seconds, a killed worker's jobs are waited for.
    #[arg(long, default_value_t = 65)]
    kill_window: u64,
}

impl Args {
    fn names(&self, contender: Contender) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| contender.name().contains(part))
    }
}

/// From the second round on, runs that would take longer than this get as many fewer jobs.
const LONGEST: f64 = 10.0;
/// Jobs of the backlog in which a worker is killed.
const KILL_JOBS: usize = 3_000;
/// How long an open loop runs.
const OPEN_SECONDS: f64 = 4.0;

/// A run in the making.
struct Run<'a> {
    args: &'a Args,
    bench: Bench,
    figures: Figures,
    rows: Vec<Row>,
    /// Who could not take part, and why.
    absent: BTreeMap<Contender, String>,
    /// What went wrong.
    faults: Vec<String>,
}

/// Runs it: the rows, and what keeps the run from being a whole one.
///
/// # Errors
/// When nothing can be measured at all.
pub fn run(args: &Args) -> Result<(Vec<Row>, Option<String>), Box<dyn std::error::Error>> {
    Ok(whole(args).map_err(|fault| fault.to_string())?)
}

fn whole(args: &Args) -> Result<(Vec<Row>, Option<String>), Fault> {
    let kit = match &args.kit {
        Some(path) if !args.ours => serde_json::from_slice(&fs::read(path)?)?,
        _ => Kit::default(),
    };
    let directory = tempfile::tempdir()?;
    let mut world = Command::new(std::env::current_exe()?);
    let (_world, address) = Program::start(world.arg("jobs-world"), &directory.path().join("world.log"))?;
    let mut run = Run {
        args,
        bench: Bench::new(kit, address.trim().to_owned())?,
        figures: Figures::default(),
        rows: Vec::new(),
        absent: BTreeMap::new(),
        faults: Vec::new(),
    };
    if !args.ours {
        for contender in Contender::ALL.into_iter().filter(|it| args.names(*it)) {
            let lacks = if args.kit.is_none() && contender != Contender::Ours {
                Some("`cargo xtask bench jobs` installs the peers")
            } else {
                run.bench.kit.lacks(contender)
            };
            if let Some(why) = lacks {
                run.absent.insert(contender, why.to_owned());
            }
        }
    }
    run.rounds();
    run.throughput();
    run.latency();
    run.kills();
    run.syncs();
    run.memory();
    Ok(run.end()?)
}

impl Run<'_> {
    fn contenders(&self) -> Vec<Contender> {
        let takes_part = |it: &Contender| {
            let wanted = if self.args.ours { *it == Contender::Ours } else { self.args.names(*it) };
            wanted && !self.absent.contains_key(it)
        };
        Contender::ALL.into_iter().filter(takes_part).collect()
    }

    fn fault(&mut self, contender: Contender, what: &str, fault: &Fault) {
        let text = format!("{}: {what}: {fault}", contender.name());
        eprintln!("{text}");
        self.faults.push(text);
    }

    /// The interleaved burn-downs.
    fn rounds(&mut self) {
        let mut sizes: BTreeMap<(Contender, &str), usize> = BTreeMap::new();
        for round in 1..=self.args.rounds {
            if let Err(fault) = self.raw(round) {
                self.fault(Contender::Ours, "raw store", &fault);
            }
            let mut order = self.contenders();
            // Nobody always comes after the same neighbour's heat.
            let turn = (round - 1) % order.len().max(1);
            order.rotate_left(turn);
            for contender in order {
                if !contender.is_scored() && round > 1 {
                    continue;
                }
                for (kind, what) in [("noop", NOOP), ("effects", EFFECTS)] {
                    // The development server is slow and no peer: a glance will do.
                    let most = if contender.is_scored() { self.args.jobs } else { self.args.jobs / 100 };
                    let jobs = sizes.get(&(contender, kind)).copied().unwrap_or(most);
                    match self.bench.burn_down(contender, kind, jobs) {
                        Ok(burn) => {
                            sizes.insert((contender, kind), shorter(&burn));
                            self.burnt(contender, kind, what, round, &burn);
                        }
                        Err(fault) => self.fault(contender, kind, &fault),
                    }
                }
            }
        }
    }

    fn raw(&mut self, round: usize) -> Result<(), Fault> {
        let directory = tempfile::tempdir()?;
        let raw = raw::limit(directory.path(), self.args.jobs)?;
        self.figures.note("raw store", Contender::Ours, round, raw.per_second, "jobs/s");
        self.figures.note(
            "raw store per CPU-second",
            Contender::Ours,
            round,
            raw.per_cpu_second,
            "jobs/CPU-s",
        );
        Ok(())
    }

    fn burnt(&mut self, contender: Contender, kind: &str, what: &'static str, round: usize, burn: &BurnDown) {
        eprintln!(
            "round {round}, {}, {kind}: {} jobs, enqueued in {:.2} s, done in {:.2} s, {:.2} s of processor time",
            contender.name(),
            burn.jobs,
            burn.enqueue_seconds,
            burn.drain_seconds,
            burn.cpu_seconds
        );
        let noop = kind == "noop";
        let name = |a, b| if noop { a } else { b };
        let per_second = name("burn-down no-op", "burn-down two effects");
        let enqueued = name("enqueued and burnt down no-op", "enqueued and burnt down two effects");
        self.figures.note(what, contender, round, burn.per_cpu_second(), "jobs/CPU-s");
        self.figures.note(per_second, contender, round, burn.per_second(), "jobs/s");
        self.figures.note(enqueued, contender, round, burn.whole_per_second(), "jobs/s");
        if let Some(world) = &burn.world {
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let (lost, doubled) =
                (burn.jobs.saturating_sub(world.transacted.min(world.put)) as f64, world.doubled as f64);
            self.figures.note("lost effects undisturbed", contender, round, lost, "jobs");
            self.figures.note("doubled effects undisturbed", contender, round, doubled, "jobs");
        }
    }

    /// The rows of the burn-downs.
    fn throughput(&mut self) {
        let figures = &self.figures;
        let ours = |what: &str| figures.spread(what, Contender::Ours).map(|spread| spread.median);
        let mut rows = Vec::new();
        if let (Some(noop), Some(peer)) = (ours(NOOP), figures.best_peer(NOOP)) {
            rows.push(
                Row::new("jobs: per CPU-second, no-op, ours by the best peer", noop / peer, "x")
                    .at_least(3.0),
            );
        }
        let restate = figures.spread(EFFECTS, Contender::Restate).map(|spread| spread.median);
        if let (Some(effects), Some(restate)) = (ours(EFFECTS), restate) {
            let row = Row::new("jobs: per CPU-second, two effects, ours by Restate", effects / restate, "x");
            rows.push(row.at_least(10.0));
        }
        let (name, effects) =
            ("burn-down two effects", "jobs: burn-down, two effects, ours by Restate, by the wall clock");
        let restate = figures.spread(name, Contender::Restate).map(|spread| spread.median);
        if let (Some(ours), Some(restate)) = (ours(name), restate) {
            rows.push(Row::new(effects, ours / restate, "x"));
        }
        if let (Some(ours), Some(raw)) = (ours("enqueued and burnt down no-op"), ours("raw store")) {
            let row =
                Row::new("jobs: share of the raw store's batched-commit limit", 100.0 * ours / raw, "%");
            rows.push(row.at_least(70.0));
            rows.push(
                Row::new("jobs: enqueued and burnt down, no-op, ours beside the raw store", ours, "jobs/s")
                    .beside(raw),
            );
        }
        if let (Some(ours), Some(raw)) = (ours(NOOP), ours("raw store per CPU-second")) {
            rows.push(
                Row::new("jobs: per CPU-second, no-op, ours beside the raw store", ours, "jobs/CPU-s")
                    .beside(raw),
            );
        }
        for what in [NOOP, EFFECTS] {
            rows.extend(figures.rows(what, "jobs/CPU-s"));
        }
        for what in ["burn-down no-op", "burn-down two effects", "enqueued and burnt down no-op"] {
            rows.extend(figures.rows(what, "jobs/s"));
        }
        for what in ["lost effects undisturbed", "doubled effects undisturbed"] {
            rows.extend(figures.rows(what, "jobs"));
        }
        self.rows.extend(rows);
    }

    /// The open loop at half of the slowest contender's peak.
    fn latency(&mut self) {
        let scored: Vec<_> = self.contenders().into_iter().filter(|it| it.is_scored()).collect();
        let peaks = scored.iter().filter_map(|it| self.figures.spread("burn-down no-op", *it));
        let Some(slowest) = peaks.map(|spread| spread.median).reduce(f64::min) else { return };
        let rate = slowest / 2.0;
        for round in 1..=self.args.rounds {
            for contender in &scored {
                match self.bench.open_loop(*contender, rate, OPEN_SECONDS) {
                    Ok(waits) => {
                        let [p50, p99] = [500, 990].map(|p| percentile(&waits, p));
                        self.figures.note("enqueue to start p50", *contender, round, p50, "ms");
                        self.figures.note("enqueue to start p99", *contender, round, p99, "ms");
                    }
                    Err(fault) => self.fault(*contender, "open loop", &fault),
                }
            }
        }
        self.rows.push(Row::new("jobs: rate of the open loop", rate, "jobs/s"));
        for what in ["enqueue to start p50", "enqueue to start p99"] {
            let mut rows = self.figures.rows(what, "ms");
            if what.ends_with("p99") && !rows.is_empty() {
                let ours = rows.remove(0);
                rows.insert(0, ours.at_most(5.0));
            }
            self.rows.extend(rows);
        }
    }

    /// SIGKILL in the middle.
    fn kills(&mut self) {
        let jobs = KILL_JOBS.min(self.args.jobs);
        for contender in self.contenders().into_iter().filter(|it| it.is_scored()) {
            match self.bench.kill(contender, jobs, Duration::from_secs(self.args.kill_window)) {
                Ok(killed) => self.killed(contender, &killed),
                Err(fault) => self.fault(contender, "kill", &fault),
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn killed(&mut self, contender: Contender, killed: &Killed) {
        let name = contender.name();
        eprintln!(
            "kill, {name}: {} of {} jobs in flight, {} taken up again, {} unfinished and {} doubled after {:.1} s",
            killed.in_flight,
            killed.jobs,
            killed.resumed.len(),
            killed.unfinished,
            killed.doubled,
            killed.watched_seconds
        );
        // Those that were not taken up have waited at least as long as was looked.
        let mut waits = killed.resumed.clone();
        waits.resize(killed.in_flight.max(waits.len()), killed.watched_seconds);
        let p99 = percentile(&waits, 990);
        let ours = contender == Contender::Ours;
        let goal = |row: Row, most: f64| if ours { row.at_most(most) } else { row };
        for (what, value, unit, most) in [
            ("resumed after SIGKILL p99", p99, "s", 2.0),
            ("unfinished after SIGKILL", killed.unfinished as f64, "jobs", 0.0),
            ("doubled effects after SIGKILL", killed.doubled as f64, "jobs", 0.0),
        ] {
            self.figures.note(what, contender, 1, value, unit);
            self.rows.push(goal(Row::new(&format!("jobs: {what}, {name}"), value, unit), most));
        }
        self.figures.note("in flight at SIGKILL", contender, 1, killed.in_flight as f64, "jobs");
        self.rows.push(Row::new(
            &format!("jobs: in flight at SIGKILL, {name}"),
            killed.in_flight as f64,
            "jobs",
        ));
    }

    fn syncs(&mut self) {
        for contender in self.contenders() {
            let jobs = if contender.is_scored() { self.args.jobs.min(2_000) } else { 50 };
            match self.bench.syncs(contender, jobs) {
                Ok(syncs) => self.figures.note("syncs per job no-op", contender, 1, syncs, "syncs"),
                Err(fault) => self.fault(contender, "syncs", &fault),
            }
        }
        self.rows.extend(self.figures.rows("syncs per job no-op", "syncs"));
    }

    fn memory(&mut self) {
        if self.args.queued == 0 {
            return;
        }
        match self.bench.memory(self.args.queued) {
            Ok(peak) => {
                self.figures.note("peak memory", Contender::Ours, 1, peak, "MB");
                let name = format!("jobs: peak memory with {} queued and running", self.args.queued);
                self.rows.push(Row::new(&name, peak, "MB").at_most(256.0));
            }
            Err(fault) => self.fault(Contender::Ours, "memory", &fault),
        }
    }

    fn end(mut self) -> std::io::Result<(Vec<Row>, Option<String>)> {
        for (contender, why) in &self.absent {
            let mut row = Row::new(&format!("jobs: {}: not run: {why}", contender.name()), 0.0, "");
            row.holds = Some(false);
            self.rows.push(row);
            self.faults.push(format!("{}: not run: {why}", contender.name()));
        }
        if let Some(out) = &self.args.out {
            self.figures.write(out)?;
            fs::write(out.join("jobs.json"), serde_json::to_string_pretty(&self.rows)? + "\n")?;
        }
        let complaint = (!self.faults.is_empty()).then(|| self.faults.join("\n"));
        Ok((self.rows, complaint))
    }
}

/// As many jobs as keep the next round short.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a number of jobs"
)]
fn shorter(burn: &BurnDown) -> usize {
    let share = (LONGEST / burn.seconds()).min(1.0);
    ((burn.jobs as f64 * share) as usize).max(burn.jobs.min(500))
}
