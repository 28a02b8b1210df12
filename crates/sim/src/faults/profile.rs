//! The profile of a run: what goes wrong, and how often. It is read from and written as the text of `--faults`.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// A port, as the profile names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The database.
    Db,
    /// The queue of triggers and events, and that of hints.
    Queue,
    /// Job queues.
    Jobs,
    /// Storage of blocks and evidence.
    Storage,
    /// The event bus.
    Events,
    /// Alerts.
    Alerts,
    /// The cache.
    Cache,
    /// Providers.
    Provider,
    /// The settlement layer.
    Settlement,
    /// The data-availability layer.
    Da,
    /// Schedules, recurring and one-time.
    Schedule,
    /// The prober's operations.
    Probe,
    /// Requests of clients.
    Api,
}

impl Port {
    /// Every port.
    pub const ALL: [Self; 13] = [
        Self::Db,
        Self::Queue,
        Self::Jobs,
        Self::Storage,
        Self::Events,
        Self::Alerts,
        Self::Cache,
        Self::Provider,
        Self::Settlement,
        Self::Da,
        Self::Schedule,
        Self::Probe,
        Self::Api,
    ];

    /// Its name in a profile.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Queue => "queue",
            Self::Jobs => "jobs",
            Self::Storage => "storage",
            Self::Events => "events",
            Self::Alerts => "alerts",
            Self::Cache => "cache",
            Self::Provider => "provider",
            Self::Settlement => "settlement",
            Self::Da => "da",
            Self::Schedule => "schedule",
            Self::Probe => "probe",
            Self::Api => "api",
        }
    }
}

/// How often calls of one port go wrong, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// An error before the effect.
    pub before: u32,
    /// An error after the effect: the caller can't know.
    pub after: u32,
    /// A delay, short or long, before or after the effect.
    pub delay: u32,
    /// A message is lost.
    pub drop: u32,
    /// A message, or a call, comes twice; the second time late.
    pub duplicate: u32,
    /// Messages overtake one another.
    pub reorder: u32,
}

impl Rates {
    const fn all(errors: u32, delay: u32) -> Self {
        let half = errors / 2;
        Self { before: half, after: half, delay, drop: errors, duplicate: errors, reorder: errors }
    }

    fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What goes wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    rates: BTreeMap<Port, Rates>,
    /// Kills of a process in an hour, for each replica.
    pub restarts_per_hour: u32,
    /// Pauses of a process in an hour, for each replica.
    pub pauses_per_hour: u32,
    /// Times in an hour that a replica is cut off from the database for a while.
    pub cuts_per_hour: u32,
    /// Outages and slow times of a provider in an hour.
    pub outages_per_hour: u32,
    /// How wrong a process's clock may be, in milliseconds.
    pub skew_ms: u32,
}

impl Profile {
    /// The rates of a port.
    #[must_use]
    pub fn rates(&self, port: Port) -> Rates {
        self.rates.get(&port).copied().unwrap_or_default()
    }

    fn named(name: &str) -> Option<Self> {
        let everywhere = |errors, delay| Port::ALL.map(|port| (port, Rates::all(errors, delay))).into();
        Some(match name {
            "none" => Self::default(),
            "light" => Self {
                rates: everywhere(4_000, 10_000),
                restarts_per_hour: 6,
                pauses_per_hour: 4,
                cuts_per_hour: 2,
                outages_per_hour: 2,
                skew_ms: 200,
            },
            "heavy" => Self {
                rates: everywhere(20_000, 25_000),
                restarts_per_hour: 40,
                pauses_per_hour: 15,
                cuts_per_hour: 10,
                outages_per_hour: 6,
                skew_ms: 5_000,
            },
            // For counting: processes die all the time, and little else goes wrong.
            "kills" => Self {
                rates: everywhere(4_000, 20_000),
                restarts_per_hour: 240,
                pauses_per_hour: 4,
                cuts_per_hour: 2,
                outages_per_hour: 1,
                skew_ms: 200,
            },
            _ => return None,
        })
    }

    /// Every profile that is this one with one kind of fault left out: what a failing run is tried with again.
    #[must_use]
    pub fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for (port, rates) in &self.rates {
            if rates.is_none() {
                continue;
            }
            let mut without = self.clone();
            without.rates.remove(port);
            found.push(without);
        }
        let fields: [fn(&mut Self) -> &mut u32; 5] = [
            |p| &mut p.restarts_per_hour,
            |p| &mut p.pauses_per_hour,
            |p| &mut p.cuts_per_hour,
            |p| &mut p.outages_per_hour,
            |p| &mut p.skew_ms,
        ];
        for field in fields {
            let mut without = self.clone();
            if std::mem::take(field(&mut without)) > 0 {
                found.push(without);
            }
        }
        found
    }
}

fn ratio(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no share: give a number from 0 to 1, such as 0.02");
    let value: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=1.0).contains(&value) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
    let ppm = (value * 1e6).round() as u32;
    Ok(ppm)
}

fn set(profile: &mut Profile, item: &str) -> Result<(), String> {
    let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
    let count = |usual: u32| match value {
        None => Ok(usual),
        Some(text) => text.parse::<u32>().map_err(|_| format!("`{text}` is no whole number")),
    };
    match name {
        "restart" => profile.restarts_per_hour = count(40)?,
        "pause" => profile.pauses_per_hour = count(15)?,
        "cut" => profile.cuts_per_hour = count(10)?,
        "outage" => profile.outages_per_hour = count(6)?,
        "skew" => profile.skew_ms = count(5_000)?,
        _ => {
            let port = Port::ALL.into_iter().find(|port| port.as_str() == name).ok_or_else(|| {
                format!("`{name}` is neither a port nor restart, pause, cut, outage or skew")
            })?;
            let rates = profile.rates.entry(port).or_default();
            let value = value.unwrap_or("0.03");
            if !value.contains(':') {
                let share = ratio(value)?;
                *rates = Rates::all(share, share);
                return Ok(());
            }
            for part in value.split('+') {
                let (kind, share) =
                    part.split_once(':').ok_or_else(|| format!("`{part}`: give KIND:SHARE"))?;
                let share = ratio(share)?;
                match kind {
                    "before" => rates.before = share,
                    "after" => rates.after = share,
                    "delay" => rates.delay = share,
                    "drop" => rates.drop = share,
                    "duplicate" => rates.duplicate = share,
                    "reorder" => rates.reorder = share,
                    _ => {
                        return Err(format!(
                            "`{kind}` is none of before, after, delay, drop, duplicate, reorder"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = text.split(',').filter(|item| !item.is_empty()).peekable();
        let mut profile = Self::default();
        if let Some(named) = items.peek().and_then(|first| Self::named(first)) {
            profile = named;
            items.next();
        }
        items.try_for_each(|item| set(&mut profile, item))?;
        Ok(profile)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in ["none", "light", "heavy", "kills"] {
            if Self::named(name).is_some_and(|named| named == *self) {
                return f.write_str(name);
            }
        }
        let mut items = Vec::new();
        for (port, rates) in &self.rates {
            let share = |ppm: u32| f64::from(ppm) / 1e6;
            let kinds = [
                ("before", rates.before),
                ("after", rates.after),
                ("delay", rates.delay),
                ("drop", rates.drop),
                ("duplicate", rates.duplicate),
                ("reorder", rates.reorder),
            ];
            let parts: Vec<String> = kinds
                .into_iter()
                .filter(|(_, ppm)| *ppm > 0)
                .map(|(kind, ppm)| format!("{kind}:{}", share(ppm)))
                .collect();
            if !parts.is_empty() {
                items.push(format!("{}={}", port.as_str(), parts.join("+")));
            }
        }
        let counts = [
            ("restart", self.restarts_per_hour),
            ("pause", self.pauses_per_hour),
            ("cut", self.cuts_per_hour),
            ("outage", self.outages_per_hour),
            ("skew", self.skew_ms),
        ];
        items.extend(counts.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")));
        if items.is_empty() { f.write_str("none") } else { f.write_str(&items.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_and_written() {
        for text in
            ["none", "light", "heavy", "kills", "db=before:0.02,restart=7", "queue=drop:0.1+reorder:0.5"]
        {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
            assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
        }
        let profile: Profile = "db=0.02,provider=0.1,pause,restart,skew".parse().unwrap();
        assert_eq!(profile.rates(Port::Db).before, 10_000);
        assert_eq!((profile.restarts_per_hour, profile.skew_ms), (40, 5_000));
        assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
        let profile: Profile = "light,restart=0".parse().unwrap();
        assert_eq!(profile.restarts_per_hour, 0);
        assert!(profile.rates(Port::Da).before > 0);
        for bad in ["dB=0.1", "db=2", "db=x:0.1", "restart=many"] {
            assert!(bad.parse::<Profile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_simpler_profile_lacks_one_kind_of_fault() {
        let profile: Profile = "db=0.02,queue=0.1,pause".parse().unwrap();
        let simpler: Vec<String> = profile.simpler().iter().map(ToString::to_string).collect();
        assert_eq!(simpler.len(), 3);
        assert!(simpler.iter().any(|s| !s.contains("pause")) && simpler.iter().any(|s| !s.contains("db")));
        assert!(Profile::default().simpler().is_empty());
    }
}
