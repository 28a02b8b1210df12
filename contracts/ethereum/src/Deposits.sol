// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Hashes} from "./lib/Hashes.sol";
import {Store} from "./Store.sol";
import {Deposit} from "./Types.sol";

/// @title Money comes in
/// @notice Deposits are numbered from 1. Blocks consume them in that order and can't pass one over.
abstract contract Deposits is Store {
    error WrongAccount();

    event Deposited(
        uint64 indexed index, bytes30 indexed key, address indexed owner, string name, uint128 amount, uint128 sum
    );

    /// @notice Pays into an account of the ledger. Only `owner` will ever be paid out of it.
    /// @param name The account's name in the ledger, such as `consumer:<id>`.
    /// @param amount What the caller pays; what arrives is credited.
    function deposit(address owner, string calldata name, uint128 amount)
        external
        whenNotPaused
        beforeExit
        nonReentrant
        returns (uint64 index)
    {
        // Money for nobody, or for this contract, could never leave.
        require(owner != address(0) && owner != address(this), WrongAccount());
        require(bytes(name).length != 0 && bytes(name).length <= 128, WrongAccount());
        uint128 arrived = _pull(amount);
        index = depositCount + 1;
        // Before there was money, nobody waited for a block.
        if (index == 1) lastFinalAt = uint64(block.timestamp);
        bytes30 key = Hashes.accountKey(DOMAIN, owner, bytes(name));
        uint128 sum = _deposits[index - 1].sum + arrived;
        _deposits[index] = Deposit({key: key, reclaimed: false, sum: sum, time: uint64(block.timestamp)});
        depositCount = index;
        emit Deposited(index, key, owner, name, arrived, sum);
    }
}
