// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {StateMachine} from "./lib/StateMachine.sol";
import {Deposit, Fault, State} from "./Types.sol";

/// @notice Where the executor reads what was deposited.
interface IDeposits {
    function depositAt(uint64 index) external view returns (Deposit memory);
    function depositCount() external view returns (uint64);
}

/// @title Executes the records of one step
/// @notice The settlement contract creates it for itself, because both together are too large for one contract. It has no
/// storage and no owner.
contract Executor {
    /// @notice What is wrong with the step, or the state after it.
    /// @param domain The settlement domain.
    /// @param state The state before.
    /// @param cells The records, 31 bytes each.
    /// @param witness The leaves that they touch.
    /// @param last Whether the block ends with the step.
    function execute(bytes32 domain, State memory state, bytes calldata cells, bytes calldata witness, bool last)
        external
        view
        returns (Fault fault, bytes32 stateAfter)
    {
        fault = StateMachine.run(state, cells, witness, last, IDeposits(msg.sender));
        if (fault == Fault.None) stateAfter = StateMachine.hash(domain, state);
    }
}
