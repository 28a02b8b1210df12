// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The part of a block that is committed to.
struct Header {
    /// Counted from 1; block 0 is the empty state.
    uint64 number;
    /// Hash of the parent's header; zero for block 1.
    bytes32 parent;
    /// State root after the block.
    bytes32 stateRoot;
    /// What deposits ever credited, after the block.
    uint128 total;
    /// Root over the leaves of its steps.
    bytes32 eventsRoot;
    /// Root over the evidence that its verdicts rest on.
    bytes32 evidenceRoot;
    /// Index of the last consumed deposit.
    uint64 lastDeposit;
    /// How many records it has.
    uint32 records;
    /// Index that the next entry of the market tree takes.
    uint32 nextMarket;
}

/// @notice What is kept of a registered block.
struct Block {
    bytes32 hash;
    bytes32 stateRoot;
    /// Keccak-256 over the versioned hashes of its blobs, one after the other.
    bytes32 blobsRoot;
    uint128 total;
    uint64 lastDeposit;
    uint32 nextMarket;
    /// Seconds since 1970, good until 2106.
    uint32 registeredAt;
}

/// @notice What is kept of a deposit; its amount is the difference to the sum before it.
struct Deposit {
    bytes30 key;
    bool reclaimed;
    /// Sum of this and all deposits before.
    uint128 sum;
    uint64 time;
}

/// @notice The parts of a state root beside the accounts tree.
struct StateParts {
    bytes32 market;
    uint32 nextIndex;
    uint128 total;
}

/// @notice An account in some state, opened by its owner and name.
struct Claim {
    address owner;
    uint32 index;
    uint128 balance;
    /// Ever released for withdrawal, cumulative.
    uint128 withdrawable;
    string name;
}

/// @notice Everything that the next record may depend on.
struct State {
    bytes32 accounts;
    bytes32 market;
    uint128 total;
    uint32 nextIndex;
    uint32 nextMarket;
    uint64 lastDeposit;
    /// A verdict waits for its evidence.
    bool openVerdict;
    /// What of the payment before may still be credited.
    uint128 creditable;
    /// Index of the account that got the payment.
    uint32 creditor;
}

/// @notice What is wrong with a block.
enum Fault {
    None,
    NoRecord,
    BrokenVerdict,
    ZeroAmount,
    WrongKind,
    UnknownAccount,
    Overdraft,
    Overflow,
    WrongDeposit,
    AccountExists,
    UnknownMarket,
    MarketExists,
    Full,
    Credit,
    WrongState,
    OtherData
}
