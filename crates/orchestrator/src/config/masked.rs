//! Addresses that may hold passwords, as people and logs may read them.

use super::Config;

/// What stands where a secret was.
const MASK: &str = "***";
/// Options of a connection string whose values are secrets, or may hold one, in small letters.
const SECRET_OPTIONS: [&str; 4] = ["password", "secret", "token", "authmechanismproperties"];

/// An address without user, password and secret options. Rather too little is shown than too much: everything before
/// the last `@` counts as user and password, since a password that was not encoded may hold any sign.
#[must_use]
pub fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| (MASK, rest));
    let (place, options) = rest.split_once('?').map_or((rest, ""), |(place, options)| (place, options));
    let option = |option: &str| match option.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        _ => option.to_owned(),
    };
    let options: Vec<String> = options.split('&').filter(|option| !option.is_empty()).map(option).collect();
    let mut shown = String::new();
    for (part, end) in [(scheme, "://"), (user, "@"), (place, "")] {
        if !part.is_empty() {
            shown.push_str(part);
            shown.push_str(end);
        }
    }
    if !options.is_empty() {
        shown.push('?');
        shown.push_str(&options.join("&"));
    }
    shown
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_OPTIONS.iter().any(|word| name.contains(word))
}

impl Config {
    /// The same configuration as it may be shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut config = self.clone();
        config.database.url = masked(&config.database.url);
        config.cache.url = masked(&config.cache.url);
        config.aws.endpoint = masked(&config.aws.endpoint);
        config.ethereum.rpc_url = masked_node(&config.ethereum.rpc_url);
        config.ethereum.beacon_url = masked_node(&config.ethereum.beacon_url);
        for address in &mut config.notification.webhooks {
            *address = masked_webhook(address);
        }
        config
    }
}

/// The `@` of a mail address is none of a password.
/// A node's address; whoever rents one out often puts the key into its path.
fn masked_node(address: &str) -> String {
    let shown = masked(address);
    let (scheme, rest) =
        shown.split_once("://").map_or(("", shown.as_str()), |(scheme, rest)| (scheme, rest));
    match rest.split_once(['/', '?']) {
        Some((host, path)) if !path.is_empty() => format!("{scheme}://{host}/{MASK}"),
        _ => shown,
    }
}

fn masked_webhook(address: &str) -> String {
    match address.contains("://") {
        true => masked(address),
        false => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (url, shown) in [
            ("", ""),
            ("redis://host:6379", "redis://host:6379"),
            ("redis://:pass@host:6379/2", "redis://***@host:6379/2"),
            ("mongodb://user:p%40ss@a:1,b:2/?replicaSet=rs0", "mongodb://***@a:1,b:2/?replicaSet=rs0"),
            ("mongodb://user:p@ss/w?rd@a:1/?w=1", "mongodb://***@a:1/?w=1"),
            (
                "mongodb+srv://a/?tlsCertificateKeyFilePassword=x&tls=true&authMechanismProperties=AWS_SESSION_TOKEN:x",
                "mongodb+srv://a/?tlsCertificateKeyFilePassword=***&tls=true&authMechanismProperties=***",
            ),
            ("user:pass@host", "***@host"),
        ] {
            assert_eq!(masked(url), shown);
        }
        assert_eq!(masked_node("https://node.example/v3/abcdef"), "https://node.example/***");
        assert_eq!(masked_node("https://a:b@node.example"), "https://***@node.example");
        assert_eq!(masked_node("http://127.0.0.1:8545/"), "http://127.0.0.1:8545/");
        assert_eq!(masked_webhook("mailto:ops@example.com"), "mailto:ops@example.com");
        assert_eq!(masked_webhook("https://a:b@example.com/x"), "https://***@example.com/x");
    }
}
