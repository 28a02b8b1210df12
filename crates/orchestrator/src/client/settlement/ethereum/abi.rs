//! The contract's interface: the functions, events and errors that the daemon uses, as `contracts/ethereum/artifacts` has them, and
//! how an error of the contract becomes a text that a person can read. A test compares everything with the committed artifact.

use alloy::sol_types::{Revert, SolError as _, SolInterface as _};

pub use self::bindings::{Settlement, Token};

#[allow(
    missing_docs,
    clippy::too_many_arguments,
    reason = "the macro writes it; contracts/ethereum has the docs"
)]
mod bindings {
    alloy::sol! {
        #[derive(Debug, PartialEq, Eq)]
        interface Settlement {
        struct Rules {
            bytes32 domain; address token; uint128 minBond; uint32 challengeWindow; uint32 exitDelay; uint32 bondDelay;
            uint32 depositDelay; uint32 blobAge;
        }
        struct Block {
            bytes32 hash; bytes32 stateRoot; bytes32 blobsRoot; uint128 total; uint64 lastDeposit; uint32 nextMarket;
            uint32 registeredAt;
        }
        struct Header {
            uint64 number; bytes32 parent; bytes32 stateRoot; uint128 total; bytes32 eventsRoot; bytes32 evidenceRoot;
            uint64 lastDeposit; uint32 records; uint32 nextMarket;
        }
        struct State {
            bytes32 accounts; bytes32 market; uint128 total; uint32 nextIndex; uint32 nextMarket; uint64 lastDeposit;
            bool openVerdict; uint128 creditable; uint32 creditor;
        }
        struct StepChallenge {
            Header header; uint32 step; bytes32 cellsBefore; bytes32[] proofBefore; State state; bytes cells;
            bytes32 stateAfter; bytes32[] proof; bytes witness;
        }
        struct DataChallenge {
            Header header; uint32 step; bytes32 cellsHash; bytes32 stateAfter; bytes32[] proof; bytes32[] blobs;
            bytes commitments; bytes openings;
        }
        struct StateParts { bytes32 market; uint32 nextIndex; uint128 total; }
        struct Claim { address owner; uint32 index; uint128 balance; uint128 withdrawable; string name; }

        constructor(Rules rules, address owner, address operator, address[] oracles, uint256 threshold);

        function publish(uint64 number, uint32 part) external;
        function register(
            Header header, bytes32[] blobs, bytes steps, bytes[] signatures
        ) external;
        function finalise(uint64 number) external;
        function postBond(uint128 amount) external;
        function withdraw(uint64 number, StateParts parts, Claim[] claims, bytes32[] siblings) external;
        function withdrawMany(uint64 number, StateParts parts, Claim[] claims, bytes32[] siblings) external;
        function challengeStep(StepChallenge c) external;
        function challengeData(DataChallenge c) external;
        function challengeHead(
            Header header, bytes32[] blobs, bytes32 element, bytes commitment, bytes proof
        ) external;
        function deposit(address owner, string name, uint128 amount) external returns (uint64 index);

        function DOMAIN() external view returns (bytes32);
        function TOKEN() external view returns (address);
        function CHALLENGE_WINDOW() external view returns (uint32);
        function operator() external view returns (address);
        function oracles() external view returns (address[]);
        function threshold() external view returns (uint256);
        function lastRegistered() external view returns (uint64);
        function lastFinal() external view returns (uint64);
        function blockAt(uint64 number) external view returns (Block);
        function depositCount() external view returns (uint64);
        function publishedAt(bytes32 versionedHash) external view returns (uint64);
        function totalPaid() external view returns (uint128);
        function paid(bytes30 key) external view returns (uint128);
        function bonds(address operator) external view returns (uint128);

        event Deposited(
            uint64 indexed index, bytes30 indexed key, address indexed owner, string name, uint128 amount, uint128 sum
        );
        event Published(uint64 indexed number, uint32 indexed part, bytes32[] versionedHashes);
        event Registered(
            uint64 indexed number, bytes32 indexed hash, Header header, bytes32[] versionedHashes, bytes steps
        );
        event Finalised(uint64 indexed number, bytes32 indexed hash);
        event Fallen(uint64 indexed number, uint64 last, uint8 fault, address indexed challenger, uint128 reward);
        event Withdrawn(bytes30 indexed key, address indexed owner, uint128 amount, uint128 cumulative);
        event Skipped(bytes30 indexed key, address indexed owner, uint128 cumulative);
        event ExitOpened(uint64 lastFinal);
        event BondPosted(address indexed operator, uint128 amount);

        error BadOpening();
        error BadProof();
        error BlocksOpen();
        error ECDSAInvalidSignature();
        error ECDSAInvalidSignatureLength(uint256 length);
        error ECDSAInvalidSignatureS(bytes32 s);
        error EnforcedPause();
        error Exited();
        error ExpectedPause();
        error InvalidShortString();
        error NoBlobs();
        error NoBond();
        error NoDeposit();
        error NoFraud();
        error NotDue();
        error NotExited();
        error NotFinal();
        error NotOpen();
        error NotOperator();
        error NothingMoved();
        error OnlySelf();
        error OwnableInvalidOwner(address owner);
        error OwnableUnauthorizedAccount(address account);
        error ReentrancyGuardReentrantCall();
        error SafeERC20FailedOperation(address token);
        error StringTooLong(string str);
        error TooEarly();
        error TooEarlyForExit();
        error TooManyOpen();
        error TooMuch();
        error UnknownBlock();
        error WrongAccount();
        error WrongBlobs();
        error WrongDeposits();
        error WrongEnd();
        error WrongHeader();
        error WrongNumber();
        error WrongOracles();
        error WrongParent();
        error WrongProof();
        error WrongRules();
        error WrongSignatures();
        error WrongStep();
        error WrongSteps();
        }

        interface Token {
            function balanceOf(address who) external view returns (uint256);
        }
    }
}

/// The name of the function that call data is for.
#[must_use]
pub fn method(input: &[u8]) -> Option<&'static str> {
    let selector = input.first_chunk::<4>()?;
    Settlement::SettlementCalls::name_by_selector(*selector)
}

/// Why the contract refused, out of what a call gave back: the name of its error, with what it says.
#[must_use]
pub fn reason(data: &[u8]) -> String {
    if data.is_empty() {
        return "reverted without a reason".to_owned();
    }
    if let Ok(error) = Settlement::SettlementErrors::abi_decode(data) {
        return format!("{error:?}");
    }
    match Revert::abi_decode(data) {
        Ok(revert) => revert.reason,
        Err(_) => {
            format!("reverted with 0x{}", hex::encode(data.get(..data.len().min(68)).unwrap_or_default()))
        }
    }
}

/// Whether a refusal may go away by itself, without another call: it depends on what other transactions do, or on time.
#[must_use]
pub fn passes(data: &[u8]) -> bool {
    use Settlement::SettlementErrors as E;
    Settlement::SettlementErrors::abi_decode(data).is_ok_and(|error| {
        matches!(
            error,
            E::NotDue(_)
                | E::UnknownBlock(_)
                | E::WrongBlobs(_)
                | E::NoBond(_)
                | E::TooManyOpen(_)
                | E::EnforcedPause(_)
                | E::WrongSignatures(_)
                | E::NotFinal(_)
        )
    })
}

/// Why an account could not be paid; `None` when what a call gave back says nothing about any account: it is an error of the
/// contract itself, of the proof, or of the moment.
#[must_use]
pub fn unpaid(data: &[u8]) -> Option<String> {
    use Settlement::SettlementErrors as E;
    match Settlement::SettlementErrors::abi_decode(data) {
        // The token answered that it did not.
        Ok(E::SafeERC20FailedOperation(_)) => Some("the token did not move".to_owned()),
        Ok(_) => None,
        Err(_) => Some(format!("the token refused: {}", reason(data))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::{primitives::keccak256, sol_types::SolCall as _};
    use serde_json::Value;

    use super::*;

    fn canonical(input: &Value) -> String {
        let kind = input["type"].as_str().unwrap();
        match kind.strip_prefix("tuple") {
            None => kind.to_owned(),
            Some(array) => {
                let parts: Vec<_> = input["components"].as_array().unwrap().iter().map(canonical).collect();
                format!("({}){array}", parts.join(","))
            }
        }
    }

    /// The hashes of the signatures of what the artifact has of a kind.
    fn artifact(kind: &str) -> BTreeSet<[u8; 32]> {
        let path =
            format!("{}/../../contracts/ethereum/artifacts/Settlement.json", env!("CARGO_MANIFEST_DIR"));
        let artifact: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let entries = artifact["abi"].as_array().unwrap().iter().filter(|entry| entry["type"] == kind);
        entries
            .map(|entry| {
                let inputs: Vec<_> = entry["inputs"].as_array().unwrap().iter().map(canonical).collect();
                keccak256(format!("{}({})", entry["name"].as_str().unwrap(), inputs.join(","))).0
            })
            .collect()
    }

    fn selectors(kind: &str) -> BTreeSet<[u8; 4]> {
        artifact(kind).iter().map(|hash| *hash.first_chunk::<4>().unwrap()).collect()
    }

    #[test]
    fn what_is_used_is_what_the_contract_has() {
        let functions = selectors("function");
        for selector in Settlement::SettlementCalls::SELECTORS {
            let name = Settlement::SettlementCalls::name_by_selector(*selector);
            assert!(functions.contains(selector), "{name:?}");
        }
        let events = artifact("event");
        for topic in Settlement::SettlementEvents::SELECTORS {
            assert!(events.contains(topic), "{topic:?}");
        }
        // Of the errors it is all: whatever the contract says can be read.
        let errors: BTreeSet<_> = Settlement::SettlementErrors::SELECTORS.iter().copied().collect();
        assert_eq!(errors, selectors("error"));
    }

    #[test]
    fn refusals_are_readable() {
        assert_eq!(method(&Settlement::publishCall { number: 1, part: 0 }.abi_encode()), Some("publish"));
        assert_eq!(method(&[1, 2, 3, 4]), None);
        assert!(reason(&Settlement::NotOperator {}.abi_encode()).contains("NotOperator"));
        assert_eq!(reason(&[]), "reverted without a reason");
        assert_eq!(reason(&[1, 2, 3, 4]), "reverted with 0x01020304");
        assert!(
            passes(&Settlement::NotDue {}.abi_encode()) && !passes(&Settlement::WrongParent {}.abi_encode())
        );
    }
}
