// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blocks} from "./Blocks.sol";
import {Executor} from "./Executor.sol";
import {Hashes} from "./lib/Hashes.sol";
import {Points} from "./lib/Points.sol";
import {StateMachine} from "./lib/StateMachine.sol";
import {Trees} from "./lib/Trees.sol";
import {Fault, Header, State} from "./Types.sol";

/// @title Fraud proofs
/// @notice Each shows one thing that is wrong in a block that is not final. The block falls with all after it, and the
/// operator's bond becomes the challenger's. What is right can't be challenged: the call fails.
abstract contract Challenges is Blocks {
    error NotOpen();
    error WrongHeader();
    error WrongStep();
    error NoFraud();

    /// @notice Executes steps; made with this contract.
    Executor public immutable EXECUTOR = new Executor();

    /// The encoding's version in a block's first cell.
    uint8 internal constant ENCODING = 1;
    /// Bytes of an opened element: its value and its proof.
    uint256 internal constant OPENING_BYTES = 80;

    /// @notice A step that was executed wrongly.
    struct StepChallenge {
        Header header;
        uint32 step;
        /// Hash of the cells of the step before, and its proof; nothing for step 0.
        bytes32 cellsBefore;
        bytes32[] proofBefore;
        /// The state before the step.
        State state;
        bytes cells;
        /// The state after the step, as registered, and its proof.
        bytes32 stateAfter;
        bytes32[] proof;
        /// The leaves that the records touch, each with its siblings, in the order of use.
        bytes witness;
    }

    /// @notice A step whose cells are not those in the blobs.
    struct DataChallenge {
        Header header;
        uint32 step;
        /// The step's leaf as registered, and its proof.
        bytes32 cellsHash;
        bytes32 stateAfter;
        bytes32[] proof;
        /// The versioned hashes of all blobs of the block.
        bytes32[] blobs;
        /// Of the one or two blobs that hold the step.
        bytes commitments;
        /// For each cell, 80 bytes: the element in the blob and the proof of it.
        bytes openings;
    }

    /// @notice Executes a step; the block falls when a record can't be applied, or when another state comes out.
    function challengeStep(StepChallenge calldata c) external {
        (uint256 steps, uint256 count) = _open(c.header, c.step);
        require(c.cells.length == count * StateMachine.CELL_BYTES, WrongStep());
        _checkLeaf(c.header, c.step, steps, keccak256(c.cells), count, c.stateAfter, c.proof);
        _checkBefore(c, steps);
        (Fault fault, bytes32 stateAfter) = _execute(c, c.step + 1 == steps);
        if (fault == Fault.None) {
            require(stateAfter != c.stateAfter, NoFraud());
            fault = Fault.WrongState;
        }
        _fall(c.header.number, fault);
    }

    /// @notice Opens the elements of a step in the blobs; the block falls when they are not the step's cells.
    function challengeData(DataChallenge calldata c) external {
        (uint256 steps, uint256 count) = _open(c.header, c.step);
        require(c.openings.length == count * OPENING_BYTES, Points.BadOpening());
        _checkLeaf(c.header, c.step, steps, c.cellsHash, count, c.stateAfter, c.proof);
        _checkHashes(c.header.number, c.blobs);
        // Record i lies in cell i + 1.
        (bytes memory cells, bool wide) = _openCells(c, uint256(c.step) * STEP_RECORDS + 1, count);
        require(wide || keccak256(cells) != c.cellsHash, NoFraud());
        _fall(c.header.number, Fault.OtherData);
    }

    /// @notice Opens the first element of the first blob; the block falls when it is not the cell that says which block
    /// it is and how many records it has.
    function challengeHead(
        Header calldata header,
        bytes32[] calldata blobs,
        bytes32 element,
        bytes calldata commitment,
        bytes calldata proof
    ) external {
        _open(header, 0);
        _checkHashes(header.number, blobs);
        _checkSizes(commitment, proof);
        Points.check(blobs[0], 0, element, commitment, proof);
        bytes memory cell = abi.encodePacked(uint8(0), ENCODING, header.number, uint64(header.records));
        // A zero byte stands before the cell, zeros fill it.
        require(element != bytes32(cell) >> 8, NoFraud());
        _fall(header.number, Fault.OtherData);
    }

    /// The block can be challenged and has the step; how many steps it has, and how many records the step.
    function _open(Header calldata header, uint256 step) private view returns (uint256 steps, uint256 count) {
        require(header.number > lastFinal && header.number <= lastRegistered, NotOpen());
        require(_blocks[header.number].hash == Hashes.header(DOMAIN, header), WrongHeader());
        steps = _steps(header.records);
        require(step < steps, WrongStep());
        count = step + 1 < steps ? STEP_RECORDS : header.records - step * STEP_RECORDS;
    }

    /// The state before the step is the one that was registered for the step, or the block, before.
    function _checkBefore(StepChallenge calldata c, uint256 steps) private view {
        bytes32 before = StateMachine.hash(DOMAIN, c.state);
        if (c.step == 0) {
            require(before == _endState(_blocks[c.header.number - 1]), WrongStep());
        } else {
            _checkLeaf(c.header, c.step - 1, steps, c.cellsBefore, STEP_RECORDS, before, c.proofBefore);
        }
    }

    function _execute(StepChallenge calldata c, bool last) private view returns (Fault, bytes32) {
        return EXECUTOR.execute(DOMAIN, c.state, c.cells, c.witness, last);
    }

    function _checkLeaf(
        Header calldata header,
        uint256 step,
        uint256 steps,
        bytes32 cells,
        uint256 count,
        bytes32 state,
        bytes32[] calldata proof
    ) private pure {
        bytes32 leaf = Hashes.step(cells, uint32(count), state);
        require(Trees.listRootFrom(leaf, step, steps, proof) == header.eventsRoot, WrongStep());
    }

    function _checkHashes(uint64 number, bytes32[] calldata blobs) private view {
        require(keccak256(abi.encodePacked(blobs)) == _blocks[number].blobsRoot, WrongBlobs());
    }

    function _checkSizes(bytes calldata commitment, bytes calldata proof) private pure {
        require(commitment.length == Points.COMMITMENT_BYTES && proof.length == 48, Points.BadOpening());
    }

    /// The cells as the blobs have them, and whether an element is too wide to be a cell.
    function _openCells(DataChallenge calldata c, uint256 first, uint256 count)
        private
        view
        returns (bytes memory cells, bool wide)
    {
        cells = new bytes(count * StateMachine.CELL_BYTES + 1);
        uint256 firstBlob = first / Points.ELEMENTS;
        uint256 size = Points.COMMITMENT_BYTES;
        require(
            c.commitments.length == size * ((first + count - 1) / Points.ELEMENTS - firstBlob + 1), Points.BadOpening()
        );
        for (uint256 i = 0; i < count; ++i) {
            bytes calldata opening = c.openings[i * OPENING_BYTES:(i + 1) * OPENING_BYTES];
            bytes32 value = bytes32(opening);
            uint256 blob = (first + i) / Points.ELEMENTS;
            Points.check(
                c.blobs[blob],
                (first + i) % Points.ELEMENTS,
                value,
                c.commitments[(blob - firstBlob) * size:(blob - firstBlob + 1) * size],
                opening[32:]
            );
            if (value[0] != 0) wide = true;
            assembly ("memory-safe") {
                // The zero byte falls on the last byte of the cell before, which is written again.
                let put := add(cells, add(32, mul(i, 31)))
                let kept := byte(0, mload(put))
                mstore(put, value)
                if i { mstore8(put, kept) }
            }
        }
        // The first byte belongs to no cell.
        assembly ("memory-safe") {
            let length := sub(mload(cells), 1)
            cells := add(cells, 1)
            mstore(cells, length)
        }
    }
}
