// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Header} from "../Types.sol";

/// @title Every hash of the ledger that the contract recomputes
/// @notice Keccak-256 with a domain-separation byte in front, so that no leaf can be passed off as a node.
library Hashes {
    uint8 internal constant NODE = 0x01;
    uint8 internal constant ACCOUNT = 0x02;
    uint8 internal constant MARKET = 0x03;
    uint8 internal constant STATE = 0x05;
    uint8 internal constant HEADER = 0x06;
    uint8 internal constant OWNED_ACCOUNT = 0x0c;
    uint8 internal constant STEP_STATE = 0x0d;
    uint8 internal constant STEP = 0x0e;

    /// @notice How records name an account: the owner is part of the name, so nothing can redirect its money.
    function accountKey(bytes32 domain, address owner, bytes memory name) internal pure returns (bytes30) {
        return bytes30(keccak256(abi.encodePacked(OWNED_ACCOUNT, domain, owner, name)));
    }

    function accountLeaf(bytes30 key, uint128 balance, uint128 withdrawable) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(ACCOUNT, key, balance, withdrawable));
    }

    function marketLeaf(bytes30 key, bytes26 digest) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(MARKET, key, digest));
    }

    function stateRoot(bytes32 domain, bytes32 accounts, bytes32 market, uint32 nextIndex, uint128 total)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(STATE, domain, accounts, market, nextIndex, total));
    }

    /// @notice The state after some records of a block: what the next record may depend on.
    function stepState(
        bytes32 root,
        uint64 lastDeposit,
        uint32 nextMarket,
        bool openVerdict,
        uint128 creditable,
        uint32 creditor
    ) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(STEP_STATE, root, lastDeposit, nextMarket, openVerdict, creditable, creditor));
    }

    /// @notice The state at the end of a block: no verdict waits for evidence, no payment for its credits.
    function endState(bytes32 root, uint64 lastDeposit, uint32 nextMarket) internal pure returns (bytes32) {
        return stepState(root, lastDeposit, nextMarket, false, 0, 0);
    }

    /// @notice A leaf of the events tree: the cells of a step, how many they are, and the state after them.
    function step(bytes32 cells, uint32 count, bytes32 state) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(STEP, cells, count, state));
    }

    function header(bytes32 domain, Header calldata h) internal pure returns (bytes32) {
        return keccak256(
            bytes.concat(
                abi.encodePacked(HEADER, domain, h.number, h.parent, h.stateRoot, h.total),
                abi.encodePacked(h.eventsRoot, h.evidenceRoot, h.lastDeposit, h.records, h.nextMarket)
            )
        );
    }
}
