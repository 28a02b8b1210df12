// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Store} from "./Store.sol";

/// @title What the operator stands in with
/// @notice Kept apart from the users' money. A fallen block turns it into the challenger's reward, which is pulled, so
/// that no trick of a token can save a wrong block.
abstract contract Bonds is Store {
    error BlocksOpen();
    error TooEarly();

    event BondPosted(address indexed operator, uint128 amount);
    event BondRequested(address indexed operator);
    event BondReturned(address indexed operator, uint128 amount);
    event OperatorChanged(address indexed operator);
    event RewardPaid(address indexed challenger, uint128 amount);

    /// @notice The bonds of the operator and of those before it.
    mapping(address operator => uint128) public bonds;
    /// @notice When it asked for its bond; zero when it did not, or has registered a block since.
    mapping(address operator => uint64) public bondRequestedAt;
    /// @notice What challengers may take.
    mapping(address challenger => uint128) public rewards;

    function postBond(uint128 amount) external onlyOperator nonReentrant {
        uint128 arrived = _pull(amount);
        bonds[msg.sender] += arrived;
        emit BondPosted(msg.sender, arrived);
    }

    function requestBond() external {
        require(bonds[msg.sender] != 0, NothingMoved());
        bondRequestedAt[msg.sender] = uint64(block.timestamp);
        emit BondRequested(msg.sender);
    }

    function withdrawBond() external nonReentrant {
        uint64 asked = bondRequestedAt[msg.sender];
        require(asked != 0 && block.timestamp >= uint256(asked) + BOND_DELAY, TooEarly());
        // Every open block is the present operator's.
        require(msg.sender != operator || lastRegistered == lastFinal, BlocksOpen());
        uint128 amount = bonds[msg.sender];
        require(amount != 0, NothingMoved());
        bonds[msg.sender] = 0;
        bondRequestedAt[msg.sender] = 0;
        _push(msg.sender, amount);
        emit BondReturned(msg.sender, amount);
    }

    function claimReward() external nonReentrant {
        uint128 amount = rewards[msg.sender];
        require(amount != 0, NothingMoved());
        rewards[msg.sender] = 0;
        _push(msg.sender, amount);
        emit RewardPaid(msg.sender, amount);
    }

    /// @notice Another operator takes over, once no block of the present one is open. It brings a bond of its own.
    function setOperator(address next) external onlyOwner {
        require(next != address(0), NotOperator());
        require(lastRegistered == lastFinal, BlocksOpen());
        operator = next;
        emit OperatorChanged(next);
    }

    /// Turns the operator's bond into the caller's reward.
    function _forfeitBond() internal returns (uint128 amount) {
        amount = bonds[operator];
        bonds[operator] = 0;
        rewards[msg.sender] += amount;
    }
}
