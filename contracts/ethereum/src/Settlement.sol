// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Challenges} from "./Challenges.sol";
import {Deposits} from "./Deposits.sol";
import {Oracles} from "./Oracles.sol";
import {Store} from "./Store.sol";
import {Withdrawals} from "./Withdrawals.sol";

/// @title The settlement contract of one domain: one ledger in one token
/// @notice The owner may pause deposits and registrations, name oracles, and name an operator. It can't touch money, can't
/// stop withdrawals, challenges or the exit, and can't change the rules.
contract Settlement is Deposits, Withdrawals, Challenges {
    constructor(Rules memory rules, address owner, address operator, address[] memory oracles, uint256 threshold)
        Store(rules, owner, operator)
        Oracles(oracles, threshold)
    {}

    function pause() external onlyOwner {
        _pause();
    }

    function unpause() external onlyOwner {
        _unpause();
    }
}
