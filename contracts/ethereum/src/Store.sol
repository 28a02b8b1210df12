// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Hashes} from "./lib/Hashes.sol";
import {Trees} from "./lib/Trees.sol";
import {Block, Deposit} from "./Types.sol";

/// @title What the parts of the settlement contract share: its rules, which never change, and its storage
abstract contract Store is Ownable2Step, Pausable, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice What is fixed for good when the contract is deployed. Times are in seconds.
    struct Rules {
        /// Hash of the settlement domain's name.
        bytes32 domain;
        IERC20 token;
        /// What the operator must stand in with to register a block.
        uint128 minBond;
        /// How long a registered block can be challenged.
        uint32 challengeWindow;
        /// How long no block may become final before anyone may open the emergency exit.
        uint32 exitDelay;
        /// How long the operator waits for its bond after it asked for it.
        uint32 bondDelay;
        /// How old a deposit may get before every block must consume it.
        uint32 depositDelay;
        /// How old blobs may be when their block is registered: nodes keep them for about 18 days.
        uint32 blobAge;
    }

    error NotOperator();
    error NothingMoved();
    error TooMuch();
    error Exited();
    error NotExited();
    error WrongRules();

    /// @notice How many blocks may wait for finality.
    uint64 public constant MAX_OPEN = 64;

    bytes32 public immutable DOMAIN;
    IERC20 public immutable TOKEN;
    uint128 public immutable MIN_BOND;
    uint32 public immutable CHALLENGE_WINDOW;
    uint32 public immutable EXIT_DELAY;
    uint32 public immutable BOND_DELAY;
    uint32 public immutable DEPOSIT_DELAY;
    uint32 public immutable BLOB_AGE;

    /// @notice The one that may publish and register.
    address public operator;
    /// @notice Number of the last registered block.
    uint64 public lastRegistered;

    /// @notice Number of the last final block.
    uint64 public lastFinal;
    /// @notice When a block last became final; at first, when the first deposit came in.
    uint64 public lastFinalAt;
    /// @notice Index of the last deposit.
    uint64 public depositCount;
    /// @notice Whether the emergency exit is open. It never closes.
    bool public exited;

    /// @notice What was ever paid to accounts out of final blocks.
    uint128 public totalPaid;

    mapping(uint256 number => Block) internal _blocks;
    mapping(uint256 index => Deposit) internal _deposits;
    /// @notice What was ever paid to an account.
    mapping(bytes30 key => uint128) public paid;

    constructor(Rules memory rules, address owner, address operator_) Ownable(owner) {
        require(
            address(rules.token).code.length != 0 && operator_ != address(0) && rules.challengeWindow != 0
                && rules.exitDelay / 2 >= rules.challengeWindow && rules.blobAge <= 7 days
                && rules.challengeWindow <= 7 days,
            WrongRules()
        );
        DOMAIN = rules.domain;
        TOKEN = rules.token;
        MIN_BOND = rules.minBond;
        CHALLENGE_WINDOW = rules.challengeWindow;
        EXIT_DELAY = rules.exitDelay;
        BOND_DELAY = rules.bondDelay;
        DEPOSIT_DELAY = rules.depositDelay;
        BLOB_AGE = rules.blobAge;
        operator = operator_;
        bytes32 empty = Trees.empties()[Trees.DEPTH];
        _blocks[0].stateRoot = Hashes.stateRoot(rules.domain, empty, empty, 0, 0);
    }

    modifier onlyOperator() {
        require(msg.sender == operator, NotOperator());
        _;
    }

    modifier beforeExit() {
        require(!exited, Exited());
        _;
    }

    modifier afterExit() {
        require(exited, NotExited());
        _;
    }

    /// @notice A block that stands; of block 0 only the state root is set.
    function blockAt(uint64 number) external view returns (Block memory) {
        return _blocks[number];
    }

    function depositAt(uint64 index) external view returns (Deposit memory) {
        return _deposits[index];
    }

    /// Takes tokens from the caller and says how many arrived: some tokens keep a fee.
    function _pull(uint256 amount) internal returns (uint128) {
        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = TOKEN.balanceOf(address(this)) - before;
        require(arrived != 0, NothingMoved());
        require(arrived <= type(uint128).max, TooMuch());
        return uint128(arrived);
    }

    function _push(address to, uint256 amount) internal {
        TOKEN.safeTransfer(to, amount);
    }
}
