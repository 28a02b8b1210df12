// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token as it should be; anyone may mint.
contract Token is ERC20("Token", "TOK") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @notice Keeps one percent of each transfer between others.
contract FeeToken is ERC20("Fee", "FEE") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        uint256 fee = from == address(0) || to == address(0) ? 0 : amount / 100;
        super._update(from, to, amount - fee);
        if (fee != 0) super._update(from, address(0), fee);
    }
}

/// @notice Refuses some recipients, or everybody.
contract BlockingToken is ERC20("Blocking", "BLK") {
    mapping(address => bool) public isBlocked;
    bool public stopped;
    bool public greedy;

    error Blocked();

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setBlocked(address who, bool blocked) external {
        isBlocked[who] = blocked;
    }

    function setStopped(bool stopped_) external {
        stopped = stopped_;
    }

    /// Blocked recipients then use up all gas instead.
    function setGreedy(bool greedy_) external {
        greedy = greedy_;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (stopped) revert Blocked();
        if (isBlocked[to]) {
            while (greedy) {}
            revert Blocked();
        }
        super._update(from, to, amount);
    }
}

/// @notice Calls somebody in the middle of a transfer.
contract ReentrantToken is ERC20("Reentrant", "RE") {
    address public target;
    bytes public message;
    bool public reached;
    bytes public refusal;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function aim(address target_, bytes calldata message_) external {
        target = target_;
        message = message_;
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (target == address(0)) return;
        (bool ok, bytes memory answer) = target.call(message);
        reached = reached || ok;
        refusal = answer;
    }
}

/// @notice Answers nothing, as some old tokens do.
contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    /// Only this one answers, for the tests' sake.
    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}
