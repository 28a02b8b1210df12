// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blocks} from "./Blocks.sol";
import {Hashes} from "./lib/Hashes.sol";
import {Trees} from "./lib/Trees.sol";
import {Claim, Deposit, StateParts} from "./Types.sol";

/// @title Money goes out
/// @notice Amounts are cumulative: a claim pays what a final block released for withdrawal, less what was paid before. So
/// claims may be repeated, may skip blocks and may come out of order. Anyone may make them; money goes to the owner.
abstract contract Withdrawals is Blocks {
    error NotFinal();
    error WrongProof();
    error OnlySelf();
    error TooEarlyForExit();
    error NoDeposit();

    event Withdrawn(bytes30 indexed key, address indexed owner, uint128 amount, uint128 cumulative);
    /// @notice A claim of a batch that could not be paid; nothing changed for it.
    event Skipped(bytes30 indexed key, address indexed owner, uint128 cumulative);
    event ExitOpened(uint64 lastFinal);
    event Reclaimed(uint64 indexed index, address indexed owner, uint128 amount);

    /// @notice What one payment of a batch may cost, so that no recipient's code can use up the others' gas.
    uint256 internal constant PAYMENT_GAS = 300_000;

    /// @notice Pays one account, or several: all of them, or the call fails.
    /// @param number A final block.
    /// @param claims By ascending index.
    /// @param siblings Level by level from the bottom, left to right; those of empty subtrees and those that follow from
    /// the claims are left out.
    function withdraw(uint64 number, StateParts calldata parts, Claim[] calldata claims, bytes32[] calldata siblings)
        external
        nonReentrant
    {
        bytes30[] memory keys = _prove(number, parts, claims, siblings);
        for (uint256 i = 0; i < keys.length; ++i) {
            _pay(keys[i], claims[i].owner, claims[i].withdrawable);
        }
    }

    /// @notice As [`withdraw`](#withdraw), but who can't be paid is skipped.
    function withdrawMany(
        uint64 number,
        StateParts calldata parts,
        Claim[] calldata claims,
        bytes32[] calldata siblings
    ) external nonReentrant {
        bytes30[] memory keys = _prove(number, parts, claims, siblings);
        for (uint256 i = 0; i < keys.length; ++i) {
            _tryToPay(keys[i], claims[i].owner, claims[i].withdrawable);
        }
    }

    /// @notice Opens the emergency exit for good, when no block became final for too long.
    function enterExit() external beforeExit {
        _finalise(lastRegistered);
        require(lastFinalAt != 0 && block.timestamp > uint256(lastFinalAt) + EXIT_DELAY, TooEarlyForExit());
        exited = true;
        _drop(lastFinal + 1);
        emit ExitOpened(lastFinal);
    }

    /// @notice After the exit was opened: pays all that accounts held in the last final block. As
    /// [`withdrawMany`](#withdrawMany) otherwise.
    function exitMany(StateParts calldata parts, Claim[] calldata claims, bytes32[] calldata siblings)
        external
        afterExit
        nonReentrant
    {
        bytes30[] memory keys = _prove(lastFinal, parts, claims, siblings);
        for (uint256 i = 0; i < keys.length; ++i) {
            // The sum fits: it is at most what was deposited.
            _tryToPay(keys[i], claims[i].owner, claims[i].withdrawable + claims[i].balance);
        }
    }

    /// @notice After the exit was opened: gives a deposit back that no final block consumed.
    function reclaim(uint64 index, address owner, string calldata name) external afterExit nonReentrant {
        Deposit storage found = _deposits[index];
        require(index > _blocks[lastFinal].lastDeposit && index <= depositCount && !found.reclaimed, NoDeposit());
        require(found.key == Hashes.accountKey(DOMAIN, owner, bytes(name)), NoDeposit());
        found.reclaimed = true;
        uint128 amount = found.sum - _deposits[index - 1].sum;
        _push(owner, amount);
        emit Reclaimed(index, owner, amount);
    }

    /// @notice One payment of a batch, in a call of its own, so that its failure undoes nothing else.
    function payOne(bytes30 key, address owner, uint128 cumulative) external {
        require(msg.sender == address(this), OnlySelf());
        _pay(key, owner, cumulative);
    }

    function _tryToPay(bytes30 key, address owner, uint128 cumulative) private {
        if (cumulative <= paid[key]) return;
        try this.payOne{gas: PAYMENT_GAS}(key, owner, cumulative) {}
        catch {
            emit Skipped(key, owner, cumulative);
        }
    }

    function _pay(bytes30 key, address owner, uint128 cumulative) private {
        uint128 before = paid[key];
        if (cumulative <= before) return;
        uint128 amount = cumulative - before;
        uint128 sum = totalPaid + amount;
        // Whatever a block says, accounts never get more than deposits credited to them together.
        require(sum <= _blocks[lastFinal].total, TooMuch());
        paid[key] = cumulative;
        totalPaid = sum;
        _push(owner, amount);
        emit Withdrawn(key, owner, amount, cumulative);
    }

    /// The keys of the claims, when they are all in the state of the final block.
    function _prove(uint64 number, StateParts calldata parts, Claim[] calldata claims, bytes32[] calldata siblings)
        private
        view
        returns (bytes30[] memory keys)
    {
        require(number <= lastFinal, NotFinal());
        keys = new bytes30[](claims.length);
        uint256[] memory indexes = new uint256[](claims.length);
        bytes32[] memory leaves = new bytes32[](claims.length);
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata claim = claims[i];
            keys[i] = Hashes.accountKey(DOMAIN, claim.owner, bytes(claim.name));
            indexes[i] = claim.index;
            leaves[i] = Hashes.accountLeaf(keys[i], claim.balance, claim.withdrawable);
        }
        bytes32 accounts = Trees.rootOf(indexes, leaves, parts.nextIndex, siblings);
        bytes32 root = Hashes.stateRoot(DOMAIN, accounts, parts.market, parts.nextIndex, parts.total);
        require(root == _blocks[number].stateRoot, WrongProof());
    }
}
