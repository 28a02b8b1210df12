//! Layers the configuration: defaults → file → environment → flags, and gathers every fault of all of them.

use std::{collections::BTreeMap, path::Path};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, Fault};

/// Prefix of environment variables: `ORCHESTRATOR_API__LISTEN` is `api.listen`.
const PREFIX: &str = "ORCHESTRATOR_";
/// Variables with the prefix that are not configuration keys.
const RESERVED: &[&str] = &[
    "ORCHESTRATOR_CONFIG",
    "ORCHESTRATOR_URL",
    "ORCHESTRATOR_KEY",
    "ORCHESTRATOR_VAULT_KEY",
    "ORCHESTRATOR_KAFKA_PASSWORD",
];
const RESERVED_PREFIX: &str = "ORCHESTRATOR_TEST_";

/// What configures beside the defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file's name and text.
    pub file: Option<(String, String)>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Flags: dotted key and value.
    pub flags: Vec<(String, String)>,
}

impl Layers {
    /// Reads the file, if one is named, and takes the process's environment.
    ///
    /// # Errors
    /// One fault, when the file can't be read.
    pub fn gather(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Self, ConfigError> {
        let file = match file {
            None => None,
            Some(path) => {
                let place = path.display().to_string();
                match std::fs::read_to_string(path) {
                    Ok(text) => Some((place, text)),
                    Err(error) => {
                        let problem = format!("the file can't be read ({error}); name an existing TOML file");
                        return Err(ConfigError {
                            faults: vec![Fault { place, key: "--config".into(), problem }],
                        });
                    }
                }
            }
        };
        Ok(Self { file, environment: std::env::vars().collect(), flags })
    }
}

/// A value with the place it came from.
struct Setting {
    key: Vec<String>,
    value: Value,
    place: String,
}

/// Builds the configuration from its layers.
///
/// # Errors
/// Every fault of every layer.
pub fn load(layers: &Layers) -> Result<Config, ConfigError> {
    let mut faults = Vec::new();
    let mut settings = Vec::new();
    if let Some((name, text)) = &layers.file {
        read_file(name, text, &mut settings, &mut faults);
    }
    read_environment(&layers.environment, &mut settings);
    for (key, value) in &layers.flags {
        let place = format!("--set {key}");
        settings.push(Setting { key: path(key), value: scalar(value), place });
    }
    let config = apply(&settings, &mut faults);
    // Ranges and combinations are judged on what could be read, so that all faults are told at once.
    let places: BTreeMap<String, &str> =
        settings.iter().map(|s| (s.key.join("."), s.place.as_str())).collect();
    for (key, problem) in config.validate().0 {
        let place = places.get(&key).map_or("default", |place| place).to_owned();
        faults.push(Fault { place, key, problem });
    }
    if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
}

fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// A value of the environment or of a flag: TOML where it reads as such (numbers, booleans, lists), else text.
fn scalar(text: &str) -> Value {
    match format!("x = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("x")) {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::String(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn read_environment(variables: &[(String, String)], settings: &mut Vec<Setting>) {
    let mut mine: Vec<_> = variables
        .iter()
        .filter(|(name, _)| {
            name.starts_with(PREFIX)
                && !RESERVED.contains(&name.as_str())
                && !name.starts_with(RESERVED_PREFIX)
        })
        .collect();
    mine.sort();
    for (name, value) in mine {
        let key = name[PREFIX.len()..].to_lowercase().split("__").map(str::to_owned).collect();
        settings.push(Setting { key, value: scalar(value), place: format!("environment {name}") });
    }
}

fn read_file(name: &str, text: &str, settings: &mut Vec<Setting>, faults: &mut Vec<Fault>) {
    let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        let problem = error.message().to_owned();
        faults.push(Fault { place: format!("{name}:{}", line(offset)), key: "syntax".into(), problem });
    }
    flatten(table.get_ref(), &mut Vec::new(), &mut |key, value, offset| {
        settings.push(Setting { key, value, place: format!("{name}:{}", line(offset)) });
    });
}
/// Calls `found` with each leaf. Tables below the second level (maps of free keys) are leaves.
fn flatten(table: &DeTable<'_>, at: &mut Vec<String>, found: &mut impl FnMut(Vec<String>, Value, usize)) {
    for (key, value) in table {
        at.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) if at.len() < 2 => flatten(inner, at, found),
            _ => found(at.clone(), plain(value), key.span().start),
        }
        at.pop();
    }
}

fn plain(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(instant) => Value::String(instant.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(plain).collect()),
        DeValue::Table(table) => {
            Value::Table(table.iter().map(|(k, v)| (k.get_ref().to_string(), plain(v))).collect())
        }
    }
}

/// Lays the settings over the defaults one by one: a wrong one is told and left out, so that the rest is judged too.
fn apply(settings: &[Setting], faults: &mut Vec<Fault>) -> Config {
    let mut config = Config::default();
    for setting in settings {
        let key = setting.key.join(".");
        if let Err(problem) = known(&setting.key) {
            faults.push(Fault { place: setting.place.clone(), key, problem });
            continue;
        }
        match with(&config, setting) {
            Ok(next) => config = next,
            Err(problem) => faults.push(Fault { place: setting.place.clone(), key, problem }),
        }
    }
    config
}

fn with(config: &Config, setting: &Setting) -> Result<Config, String> {
    let mut table = Table::try_from(config).map_err(|error| error.to_string())?;
    if let [section, key] = setting.key.as_slice()
        && let Some(Value::Table(section)) = table.get_mut(section)
    {
        section.insert(key.clone(), setting.value.clone());
    }
    table.try_into().map_err(|error: toml::de::Error| told(error.message().trim(), &setting.key))
}

/// A fault in words that help: an address is told with an example, the default of its key.
fn told(message: &str, key: &[String]) -> String {
    let Ok(usual) = Table::try_from(Config::default()) else { return message.to_owned() };
    let default = match key {
        [section, key] => usual.get(section).and_then(|section| section.get(key)).and_then(Value::as_str),
        _ => None,
    };
    match default {
        Some(default) if message.contains("socket address") => {
            format!("must be an address such as \"{default}\"")
        }
        _ => message.to_owned(),
    }
}

/// Whether the key exists; the answer names the nearest one.
fn known(key: &[String]) -> Result<(), String> {
    let sections = super::section::keys();
    let [section, rest @ ..] = key else { return Err("a key is missing".into()) };
    let Some(keys) = sections.get(section.as_str()) else {
        return Err(format!("there is no such section; the sections are {}", join(sections.keys().copied())));
    };
    match rest {
        [key] if keys.contains(&key.as_str()) => Ok(()),
        [] => Err(format!("this is a section: write `[{section}]` and its keys below")),
        _ => Err(format!("there is no such key; the keys of [{section}] are {}", join(keys.iter().copied()))),
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Layers {
            file: Some(("test.toml".into(), file.into())),
            environment: own(environment),
            flags: own(flags),
        }
    }

    #[test]
    fn later_layers_win() {
        let file = "[api]\nlisten = \"127.0.0.1:1\"\n[sla]\nbucket = \"1m\"\n[jobs]\nretention = \"1d\"";
        let environment = [
            ("ORCHESTRATOR_API__LISTEN", "127.0.0.1:2"),
            ("ORCHESTRATOR_JOBS__RETENTION", "2d"),
            ("HOME", "/"),
        ];
        let config = load(&layers(file, &environment, &[("api.listen", "127.0.0.1:3")])).unwrap();
        assert_eq!(config.api.listen.port(), 3);
        assert_eq!(config.sla.bucket.to_string(), "1m");
        assert_eq!(config.jobs.retention.to_string(), "2d");
        assert_eq!(load(&Layers::default()).unwrap(), Config::default());
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place() {
        let file = "[api]\nlisten = 5\nlitsen = \"x\"\n\n[sla]\nbucket = \"1h\"\nbilling_period = \"1m\"\n[nope]\na = 1\n";
        let environment = [("ORCHESTRATOR_JOBS__LEASE", "soon"), ("ORCHESTRATOR_TEST_X", "1")];
        let error = load(&layers(file, &environment, &[("market.fee_basis_points", "10001")])).unwrap_err();
        let told: Vec<_> = error.faults.iter().map(|f| (f.place.as_str(), f.key.as_str())).collect();
        for expected in [
            ("test.toml:2", "api.listen"),
            ("test.toml:3", "api.litsen"),
            ("test.toml:7", "sla.billing_period"),
            ("test.toml:9", "nope.a"),
            ("environment ORCHESTRATOR_JOBS__LEASE", "jobs.lease"),
            ("--set market.fee_basis_points", "market.fee_basis_points"),
        ] {
            assert!(told.contains(&expected), "{expected:?} is missing in {told:?}");
        }
        assert_eq!(told.len(), 6, "{told:?}");
    }

    #[test]
    fn a_wrong_address_is_told_with_an_example() {
        for (key, example) in [
            ("api.listen", "127.0.0.1:7700"),
            ("provider.s3_listen", "127.0.0.1:7701"),
            ("provider.admin_listen", "127.0.0.1:7702"),
        ] {
            for wrong in ["foo", "127.0.0.1", ":80", "5"] {
                let faults = load(&layers("", &[], &[(key, wrong)])).unwrap_err().faults;
                let told: Vec<_> =
                    faults.iter().map(|fault| (fault.key.as_str(), fault.problem.as_str())).collect();
                let expected = format!("must be an address such as \"{example}\"");
                assert_eq!(told, [(key, expected.as_str())], "{wrong}");
            }
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = load(&layers("[api]\nlisten = \n", &[], &[])).unwrap_err();
        assert_eq!(error.faults[0].place, "test.toml:2");
    }

    #[test]
    fn the_example_has_every_key_at_its_default() {
        let text = include_str!("../../../../config.example.toml");
        let config = load(&layers(text, &[], &[])).unwrap();
        assert_eq!(config, Config::default());
        let table: Table = text.parse().unwrap();
        for (section, keys) in super::super::section::keys() {
            let mut found: Vec<_> = table[section].as_table().unwrap().keys().map(String::as_str).collect();
            let mut expected = keys.to_vec();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "[{section}]");
        }
    }
}
