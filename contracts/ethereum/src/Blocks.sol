// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bonds} from "./Bonds.sol";
import {Oracles} from "./Oracles.sol";
import {Hashes} from "./lib/Hashes.sol";
import {Points} from "./lib/Points.sol";
import {Trees} from "./lib/Trees.sol";
import {Block, Fault, Header} from "./Types.sol";

/// @title The chain of blocks
/// @notice A block's records lie in blobs; the hash of every step's cells and the state after it come with the
/// registration. So whoever reads the chain knows all that a fraud proof needs, and no operator can withhold it.
abstract contract Blocks is Bonds, Oracles {
    error NoBlobs();
    error WrongNumber();
    error TooManyOpen();
    error WrongParent();
    error WrongDeposits();
    error WrongSteps();
    error WrongEnd();
    error WrongBlobs();
    error NoBond();
    error NotDue();
    error UnknownBlock();

    event Published(uint64 indexed number, uint32 indexed part, bytes32[] versionedHashes);
    /// @param steps For each step: keccak-256 of its cells, and the state after it.
    event Registered(
        uint64 indexed number, bytes32 indexed hash, Header header, bytes32[] versionedHashes, bytes steps
    );
    event Finalised(uint64 indexed number, bytes32 indexed hash);
    /// @notice The blocks from `number` to `last` fell.
    event Fallen(uint64 indexed number, uint64 last, Fault fault, address indexed challenger, uint128 reward);

    /// @notice How many records a step has; the last step of a block may have fewer.
    uint32 public constant STEP_RECORDS = 48;
    uint256 internal constant STEP_BYTES = 64;
    uint256 internal constant MAX_BLOBS_READ = 16;

    /// @notice When a blob was last published, by its versioned hash.
    mapping(bytes32 versionedHash => uint64) public publishedAt;

    /// @notice Takes note of the blobs of this transaction. The same blobs may come again, and the parts in any order.
    /// @param number The block that they are for, and
    /// @param part which of its parts: both for readers of the event only, as blobs go by their hashes.
    function publish(uint64 number, uint32 part) external onlyOperator {
        bytes32[] memory hashes = new bytes32[](MAX_BLOBS_READ);
        uint256 count = 0;
        while (count < MAX_BLOBS_READ && blobhash(count) != 0) {
            hashes[count] = blobhash(count);
            publishedAt[hashes[count]] = uint64(block.timestamp);
            ++count;
        }
        require(count != 0, NoBlobs());
        assembly ("memory-safe") {
            mstore(hashes, count)
        }
        emit Published(number, part, hashes);
    }

    /// @notice Adds a block to the chain; from now on it can be challenged.
    /// @param blobs The versioned hashes of its blobs, none for a block without records.
    /// @param steps For each step, 64 bytes: keccak-256 of its cells, and the state after it.
    /// @param signatures Of the oracles, over the evidence root, by ascending address.
    function register(
        Header calldata header,
        bytes32[] calldata blobs,
        bytes calldata steps,
        bytes[] calldata signatures
    ) external onlyOperator whenNotPaused beforeExit {
        require(bonds[msg.sender] != 0 && bonds[msg.sender] >= MIN_BOND, NoBond());
        require(header.number == lastRegistered + 1, WrongNumber());
        require(header.number - lastFinal <= MAX_OPEN, TooManyOpen());
        Block storage parent = _blocks[header.number - 1];
        require(header.parent == parent.hash, WrongParent());
        _checkDeposits(header, parent.lastDeposit);
        _checkSteps(header, parent, steps);
        _checkBlobs(header.records, blobs);
        _checkSignatures(header.number, header.evidenceRoot, signatures);

        bytes32 hash = Hashes.header(DOMAIN, header);
        _blocks[header.number] = Block({
            hash: hash,
            stateRoot: header.stateRoot,
            blobsRoot: keccak256(abi.encodePacked(blobs)),
            total: header.total,
            lastDeposit: header.lastDeposit,
            nextMarket: header.nextMarket,
            registeredAt: uint32(block.timestamp)
        });
        lastRegistered = header.number;
        if (bondRequestedAt[msg.sender] != 0) bondRequestedAt[msg.sender] = 0;
        emit Registered(header.number, hash, header, blobs, steps);
    }

    /// @notice Makes blocks final, in order, up to this one. Anyone may call; nothing happens when it is final already.
    function finalise(uint64 number) external beforeExit {
        require(number <= lastRegistered, UnknownBlock());
        if (number <= lastFinal) return;
        require(_finalise(number) == number, NotDue());
    }

    /// Finalises what is due, at most up to `number`, and says how far that went.
    function _finalise(uint64 number) internal returns (uint64 done) {
        done = lastFinal;
        uint256 since = 0;
        while (done < number) {
            Block storage next = _blocks[done + 1];
            uint256 due = uint256(next.registeredAt) + CHALLENGE_WINDOW;
            if (block.timestamp < due) break;
            since = due;
            ++done;
            emit Finalised(done, next.hash);
        }
        if (since != 0) {
            lastFinal = done;
            lastFinalAt = uint64(since);
        }
    }

    /// A wrong block goes, with all that was built on it.
    function _fall(uint64 number, Fault fault) internal {
        uint64 last = lastRegistered;
        _drop(number);
        emit Fallen(number, last, fault, msg.sender, _forfeitBond());
    }

    /// Forgets the blocks from `number` on.
    function _drop(uint64 number) internal {
        for (uint64 n = number; n <= lastRegistered; ++n) {
            delete _blocks[n];
        }
        lastRegistered = number - 1;
    }

    function _endState(Block storage b) internal view returns (bytes32) {
        return Hashes.endState(b.stateRoot, b.lastDeposit, b.nextMarket);
    }

    function _steps(uint256 records) internal pure returns (uint256) {
        return (records + STEP_RECORDS - 1) / STEP_RECORDS;
    }

    /// Deposits are consumed in order and for what they are, and none is left behind for long.
    function _checkDeposits(Header calldata header, uint64 consumed) private view {
        uint64 upTo = header.lastDeposit;
        require(upTo >= consumed && upTo <= depositCount, WrongDeposits());
        require(header.total == _deposits[upTo].sum, WrongDeposits());
        require(
            upTo == depositCount || block.timestamp <= uint256(_deposits[upTo + 1].time) + DEPOSIT_DELAY,
            WrongDeposits()
        );
    }

    /// The events root is over these steps, as many as the records need, and the last one leads to the header's state.
    function _checkSteps(Header calldata header, Block storage parent, bytes calldata steps) private view {
        uint256 count = _steps(header.records);
        require(steps.length == count * STEP_BYTES, WrongSteps());
        bytes32 end = Hashes.endState(header.stateRoot, header.lastDeposit, header.nextMarket);
        if (count == 0) {
            require(header.eventsRoot == 0 && header.evidenceRoot == 0, WrongSteps());
            require(end == _endState(parent), WrongEnd());
            return;
        }
        require(bytes32(steps[steps.length - 32:]) == end, WrongEnd());
        require(header.eventsRoot == _eventsRoot(header.records, count, steps), WrongSteps());
    }

    function _eventsRoot(uint256 records, uint256 count, bytes calldata steps) private pure returns (bytes32) {
        bytes32[] memory nodes = new bytes32[](count);
        uint256 rest = records - (count - 1) * STEP_RECORDS;
        uint256 full = STEP_RECORDS;
        uint256 tag = Hashes.STEP;
        assembly ("memory-safe") {
            // Tag, hash of the cells, count in four bytes, state: 69 bytes.
            let buffer := mload(0x40)
            let from := steps.offset
            mstore8(buffer, tag)
            for { let i := 1 } iszero(gt(i, count)) { i := add(i, 1) } {
                let size := full
                if eq(i, count) { size := rest }
                mstore(add(buffer, 1), calldataload(from))
                mstore(add(buffer, 33), shl(224, size))
                mstore(add(buffer, 37), calldataload(add(from, 32)))
                mstore(add(nodes, shl(5, i)), keccak256(buffer, 69))
                from := add(from, 64)
            }
        }
        return Trees.listRoot(nodes);
    }

    /// The blobs hold a first cell and the records, and everyone could fetch them a short time ago.
    function _checkBlobs(uint256 records, bytes32[] calldata blobs) private view {
        uint256 needed = records == 0 ? 0 : records / Points.ELEMENTS + 1;
        require(blobs.length == needed, WrongBlobs());
        for (uint256 i = 0; i < needed; ++i) {
            uint256 published = publishedAt[blobs[i]];
            require(published != 0 && block.timestamp <= published + BLOB_AGE, WrongBlobs());
        }
    }
}
