//! `[ethereum]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{SettlementBackend, backend::Feature, section};
use crate::{
    config::{Config, HumanDuration, Problems},
    core::market::{address::Address, money::Amount},
};

/// When something on the chain is there for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainFinality {
    /// When consensus says so.
    Finalized,
    /// A little earlier.
    Safe,
    /// With `final_depth` blocks on top: for chains of one's own.
    Depth,
}

section! {
    /// The chain, when `settlement.backend` is `ethereum`.
    Ethereum {
        /// Name of the settlement domain, whose hash the contract was deployed with.
        domain: String = "ethereum".to_owned();
        /// The chain's id: 1 is the main chain.
        chain_id: u64 = 1;
        /// JSON-RPC address of a node.
        rpc_url: String = String::new();
        /// Address of a beacon node's API, from which blobs are read back.
        beacon_url: String = String::new();
        /// When the beacon chain's slot 0 was, in seconds since 1970. 0: blobs are asked for by the numbers of blocks, as test chains
        /// want it.
        genesis_time: u64 = 1_606_824_023;
        /// Seconds in a slot.
        slot_seconds: u64 = 12;
        /// The settlement contract's address.
        contract: String = String::new();
        /// The block in which the contract was made: nothing of it is earlier.
        from_block: u64 = 0;
        /// Blocks in one question for events, at most.
        log_range: u64 = 2_000;
        /// The operator's key: an encrypted JSON key file (version 3). Either it or `kms_key` is given.
        keystore: PathBuf = PathBuf::new();
        /// The file with the password of the key file.
        password_file: PathBuf = PathBuf::new();
        /// A key in AWS KMS instead of a key file: id or ARN of a key of kind ECC_SECG_P256K1 for SIGN_VERIFY. Cargo feature `kms`.
        kms_key: String = String::new();
        /// The address that owns the platform's fees. It can't be changed later.
        treasury: String = String::new();
        /// Blocks on top of a deposit until it counts.
        confirmations: u64 = 12;
        /// When something is there for good: `finalized`, `safe` or `depth`.
        finality: ChainFinality = ChainFinality::Finalized;
        /// With `finality = "depth"`: blocks on top.
        final_depth: u64 = 64;
        /// The most that a unit of gas may cost, in gwei. At this cap transactions wait, and an alert says so.
        max_fee_gwei: u64 = 200;
        /// The most that a unit of blob gas may cost, in gwei.
        max_blob_fee_gwei: u64 = 100;
        /// The most gas that one transaction may take.
        max_gas: u64 = 16_000_000;
        /// Whether this daemon pays out what accounts have released, many by one transaction. If not, owners or whoever likes make the
        /// claims.
        pay_out: bool = true;
        /// What an account must have released before it is paid out, in base units of the token: the operator pays for the transaction.
        min_payout: String = "1".to_owned();
        /// How long the next transaction in line may wait before more is offered for it.
        bump_after: HumanDuration = HumanDuration::secs(60);
        /// How long to wait before looking again at what is not there for good yet.
        poll: HumanDuration = HumanDuration::secs(12);
        /// How long a node may take to answer.
        timeout: HumanDuration = HumanDuration::secs(10);
        /// The key of an oracle that this daemon hosts, which signs the evidence of every block: a key file, or empty.
        oracle_keystore: PathBuf = PathBuf::new();
        /// The file with the password of the oracle's key file.
        oracle_password_file: PathBuf = PathBuf::new();
    }
}

impl Ethereum {
    /// The key in AWS KMS that signs the operator's transactions, if there is one.
    #[must_use]
    pub fn kms_key(config: &Config) -> Option<&str> {
        let used = config.settlement.backend == SettlementBackend::Ethereum;
        Some(config.ethereum.kms_key.as_str()).filter(|key| used && !key.is_empty())
    }

    /// The operator has one key, in one place.
    fn validate_key(&self, problems: &mut Problems) {
        let missing = |path: &PathBuf| path.as_os_str().is_empty();
        if self.kms_key.is_empty() {
            problems.require(
                !missing(&self.keystore),
                "ethereum.keystore",
                "must name a file, unless `ethereum.kms_key` names a key in AWS KMS",
            );
            problems.require(!missing(&self.password_file), "ethereum.password_file", "must name a file");
            return;
        }
        Feature { name: "kms", built: cfg!(feature = "kms") }.require("ethereum.kms_key", "kms", problems);
        for (key, path) in [("keystore", &self.keystore), ("password_file", &self.password_file)] {
            problems.require(
                missing(path),
                &format!("ethereum.{key}"),
                "must be empty, because `ethereum.kms_key` names the operator's key",
            );
        }
        // Another key would mean another operator, whose nonces are not those of the journal.
        let alias = self.kms_key.starts_with("alias/") || self.kms_key.contains(":alias/");
        problems.require(
            !alias && !self.kms_key.contains(char::is_whitespace),
            "ethereum.kms_key",
            "must be the id or the ARN of a key: an alias may come to mean another key",
        );
    }

    pub(crate) fn validate(&self, config: &Config, problems: &mut Problems) {
        if config.settlement.backend != SettlementBackend::Ethereum {
            return;
        }
        for (key, url) in [("rpc_url", &self.rpc_url), ("beacon_url", &self.beacon_url)] {
            let holds = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
            problems.require(
                holds,
                &format!("ethereum.{key}"),
                "must be an address such as \"https://node.example:8545\"",
            );
        }
        for (key, text) in [("contract", &self.contract), ("treasury", &self.treasury)] {
            let problem = text.parse::<Address>().err().map_or_else(String::new, |error| error.to_string());
            problems.require(problem.is_empty(), &format!("ethereum.{key}"), problem);
        }
        problems.require(
            !self.domain.is_empty() && self.domain.len() <= 64 && !self.domain.contains([',', ' ']),
            "ethereum.domain",
            "must have 1 to 64 characters, without blanks and commas",
        );
        self.validate_key(problems);
        problems.require(
            self.oracle_keystore.as_os_str().is_empty() == self.oracle_password_file.as_os_str().is_empty(),
            "ethereum.oracle_password_file",
            "must be given together with `ethereum.oracle_keystore`",
        );
        problems.require(
            self.min_payout.parse::<Amount>().is_ok(),
            "ethereum.min_payout",
            "must be a whole number of base units, such as \"1000000\"",
        );
        problems.require(self.slot_seconds > 0, "ethereum.slot_seconds", "must be at least 1");
        problems.require(self.log_range > 0, "ethereum.log_range", "must be at least 1");
        problems.require(
            (1..=1_000_000).contains(&self.max_fee_gwei) && (1..=1_000_000).contains(&self.max_blob_fee_gwei),
            "ethereum.max_fee_gwei",
            "and `max_blob_fee_gwei` must lie between 1 and 1000000",
        );
        problems.require(
            (100_000..=16_777_216).contains(&self.max_gas),
            "ethereum.max_gas",
            "must lie between 100000 and 16777216, the limit of the chain",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, load};

    /// What a configuration on Ethereum is told of the operator's key.
    fn told(settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let all = [&[("settlement.backend", "ethereum")], settings].concat();
        let flags = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let faults = load(&Layers { flags, ..Layers::default() }).unwrap_err().faults;
        let of_key =
            |key: &str| ["keystore", "password_file", "kms_key"].iter().any(|name| key.ends_with(name));
        let told = faults.into_iter().filter(|fault| of_key(&fault.key));
        told.map(|fault| (fault.key, fault.problem)).collect()
    }

    fn keys(told: &[(String, String)]) -> Vec<&str> {
        told.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn the_operator_has_one_key_in_one_place() {
        let (file, password) = (("ethereum.keystore", "k"), ("ethereum.password_file", "p"));
        let kms = ("ethereum.kms_key", "3f1a6f0c-0000-4000-8000-000000000000");
        assert_eq!(keys(&told(&[])), ["ethereum.keystore", "ethereum.password_file"]);
        assert_eq!(keys(&told(&[file])), ["ethereum.password_file"]);
        assert_eq!(told(&[file, password]), []);
        let lacking = told(&[kms]);
        assert_eq!(lacking.is_empty(), cfg!(feature = "kms"), "{lacking:?}");
        assert!(lacking.iter().all(|(_, problem)| problem.contains("--features kms`")), "{lacking:?}");
        let both = told(&[kms, file, password]);
        for key in ["ethereum.keystore", "ethereum.password_file"] {
            let names =
                |(at, problem): &(String, String)| at == key && problem.contains("`ethereum.kms_key`");
            assert!(both.iter().any(names), "{both:?}");
        }
    }

    #[test]
    fn an_alias_is_no_key() {
        let an_alias =
            |key| told(&[("ethereum.kms_key", key)]).iter().any(|(_, problem)| problem.contains("alias"));
        assert!(an_alias("alias/operator"));
        assert!(an_alias("arn:aws:kms:eu-central-1:000000000000:alias/operator"));
        assert!(!an_alias("arn:aws:kms:eu-central-1:000000000000:key/mrk-1"));
    }
}
