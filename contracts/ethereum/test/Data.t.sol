// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blocks} from "../src/Blocks.sol";
import {Challenges} from "../src/Challenges.sol";
import {Header} from "../src/Types.sol";
import {Points} from "../src/lib/Points.sol";
import {Trees} from "../src/lib/Trees.sol";
import {Vectors} from "./Vectors.sol";

contract PointsHarness {
    function point(uint256 element) external pure returns (uint256) {
        return Points.point(element);
    }
}

/// @notice Blobs against what was registered, with real openings.
contract DataTest is Vectors {
    string internal blobs;
    Header internal header;
    bytes32[] internal hashes;

    function setUp() public override {
        super.setUp();
        blobs = vm.readFile("vectors/blobs.json");
        firstBlock();
    }

    /// Registers the first block with one of the blobs of the vectors.
    function registerWith(string memory blob) internal {
        bytes memory steps;
        (header, steps) = sealVector(".blocks[0]");
        delete hashes;
        hashes.push(vm.parseJsonBytes32(blobs, string.concat(blob, ".versionedHash")));
        publish(1, hashes);
        bytes[] memory signed = signatures(header);
        vm.prank(OPERATOR);
        settlement.register(header, hashes, steps, signed);
    }

    function commitment(string memory blob) internal view returns (bytes memory) {
        return vm.parseJsonBytes(blobs, string.concat(blob, ".commitment"));
    }

    function dataChallenge(string memory blob) internal view returns (Challenges.DataChallenge memory c) {
        c.header = header;
        c.cellsHash = builder.step(0).cellsHash;
        c.stateAfter = builder.step(0).stateAfter;
        c.proof = new bytes32[](0);
        c.blobs = hashes;
        c.commitments = commitment(blob);
        bytes[] memory openings = vm.parseJsonBytesArray(blobs, string.concat(blob, ".openings"));
        for (uint256 i = 1; i <= 18; ++i) {
            c.openings = bytes.concat(c.openings, openings[i]);
        }
    }

    function headOf(string memory blob) internal view returns (bytes32 element, bytes memory proof) {
        bytes memory opening = vm.parseJsonBytesArray(blobs, string.concat(blob, ".openings"))[0];
        proof = new bytes(48);
        assembly ("memory-safe") {
            element := mload(add(opening, 32))
            mcopy(add(proof, 32), add(opening, 64), 48)
        }
    }

    function challengeHead(string memory blob) internal {
        (bytes32 element, bytes memory proof) = headOf(blob);
        bytes memory of_ = commitment(blob);
        vm.prank(CHALLENGER);
        settlement.challengeHead(header, hashes, element, of_, proof);
    }

    function fell() internal view {
        same(settlement.lastRegistered(), 0);
        same(settlement.rewards(CHALLENGER), BOND);
    }

    function test_points() public {
        PointsHarness harness = new PointsHarness();
        same(Points.OMEGA, vm.parseJsonUint(blobs, ".omega"));
        for (uint256 i = 0; i < 5; ++i) {
            string memory at_ = string.concat(".points[", vm.toString(i), "]");
            uint256 element = vm.parseJsonUint(blobs, string.concat(at_, ".element"));
            same(bytes32(harness.point(element)), vm.parseJsonBytes32(blobs, string.concat(at_, ".point")));
        }
        same(harness.point(0), 1);
    }

    function test_the_right_blob_stands() public {
        registerWith(".right");
        Challenges.DataChallenge memory c = dataChallenge(".right");
        vm.expectRevert(Challenges.NoFraud.selector);
        settlement.challengeData(c);
        (bytes32 element, bytes memory proof) = headOf(".right");
        bytes memory of_ = commitment(".right");
        vm.expectRevert(Challenges.NoFraud.selector);
        settlement.challengeHead(header, hashes, element, of_, proof);
    }

    function test_another_record_in_the_blob() public {
        registerWith(".otherRecord");
        Challenges.DataChallenge memory c = dataChallenge(".otherRecord");
        vm.prank(CHALLENGER);
        settlement.challengeData(c);
        fell();
    }

    function test_an_element_that_is_no_cell() public {
        registerWith(".wideRecord");
        Challenges.DataChallenge memory c = dataChallenge(".wideRecord");
        // The cells behind the bytes in front are right.
        vm.prank(CHALLENGER);
        settlement.challengeData(c);
        fell();
    }

    function test_another_first_cell() public {
        registerWith(".otherHead");
        challengeHead(".otherHead");
        fell();
    }

    function test_the_head_names_the_number_of_records() public {
        // The blob is right for the block with all records, and wrong for one with fewer.
        bytes memory steps;
        (header, steps) = builder.seal(EVIDENCE);
        header.records = 17;
        header.eventsRoot =
            keccak256(bytes.concat(hex"0e", builder.step(0).cellsHash, bytes4(uint32(17)), builder.step(0).stateAfter));
        hashes.push(vm.parseJsonBytes32(blobs, ".right.versionedHash"));
        publish(1, hashes);
        bytes[] memory signed = signatures(header);
        vm.prank(OPERATOR);
        settlement.register(header, hashes, steps, signed);
        challengeHead(".right");
        fell();
    }

    function test_cells_that_nobody_can_open() public {
        // Hashes of nothing instead of the steps' cells: the blob tells.
        (Header memory made, bytes memory steps) = builder.seal(EVIDENCE);
        header = made;
        bytes32 unknown = keccak256("unknown to all");
        bytes32 state = builder.step(0).stateAfter;
        header.eventsRoot = keccak256(bytes.concat(hex"0e", unknown, bytes4(uint32(18)), state));
        steps = bytes.concat(unknown, state);
        hashes.push(vm.parseJsonBytes32(blobs, ".right.versionedHash"));
        publish(1, hashes);
        bytes[] memory signed = signatures(header);
        vm.prank(OPERATOR);
        settlement.register(header, hashes, steps, signed);
        Challenges.DataChallenge memory c = dataChallenge(".right");
        c.header = header;
        c.cellsHash = unknown;
        vm.prank(CHALLENGER);
        settlement.challengeData(c);
        fell();
    }

    function test_openings_that_show_nothing() public {
        registerWith(".otherRecord");
        Challenges.DataChallenge memory c = dataChallenge(".otherRecord");
        c.openings[31] ^= 0x01;
        refused(c, Points.BadOpening.selector);
        c = dataChallenge(".otherRecord");
        c.commitments = commitment(".right");
        refused(c, Points.BadOpening.selector);
        c = dataChallenge(".otherRecord");
        c.commitments = bytes.concat(c.commitments, c.commitments);
        refused(c, Points.BadOpening.selector);
        c = dataChallenge(".otherRecord");
        c.openings = bytes.concat(c.openings, new bytes(80));
        refused(c, Points.BadOpening.selector);
        c = dataChallenge(".otherRecord");
        c.blobs[0] = vm.parseJsonBytes32(blobs, ".right.versionedHash");
        refused(c, Blocks.WrongBlobs.selector);
        c = dataChallenge(".otherRecord");
        c.cellsHash = keccak256("another");
        refused(c, Challenges.WrongStep.selector);
        c = dataChallenge(".otherRecord");
        c.step = 1;
        refused(c, Challenges.WrongStep.selector);
        c = dataChallenge(".otherRecord");
        c.proof = new bytes32[](1);
        refused(c, Trees.BadProof.selector);
        same(settlement.lastRegistered(), 1);
    }

    function refused(Challenges.DataChallenge memory c, bytes4 why) internal {
        vm.expectRevert(why);
        settlement.challengeData(c);
    }

    function test_heads_that_show_nothing() public {
        registerWith(".otherHead");
        (bytes32 element, bytes memory proof) = headOf(".otherHead");
        bytes memory of_ = commitment(".otherHead");
        bytes32[] memory others = new bytes32[](1);
        vm.expectRevert(Blocks.WrongBlobs.selector);
        settlement.challengeHead(header, others, element, of_, proof);
        vm.expectRevert(Points.BadOpening.selector);
        settlement.challengeHead(header, hashes, element, of_, bytes.concat(proof, hex"00"));
        vm.expectRevert(Points.BadOpening.selector);
        settlement.challengeHead(header, hashes, element, "", proof);
        vm.expectRevert(Points.BadOpening.selector);
        settlement.challengeHead(header, hashes, bytes32(uint256(1)), of_, proof);
        Header memory other = header;
        other.total += 1;
        vm.expectRevert(Challenges.WrongHeader.selector);
        settlement.challengeHead(other, hashes, element, of_, proof);
    }

    /// A step that lies in two blobs is opened in both.
    function test_a_step_over_two_blobs() public {
        bytes32 constant_ = vm.parseJsonBytes32(blobs, ".constant.versionedHash");
        (Header memory made, bytes memory steps) = builder.seal(EVIDENCE);
        header = made;
        // 4,095 records fill the first blob; step 85 has records 4,080 to 4,127.
        header.records = 4_128;
        steps = new bytes(86 * 64);
        bytes32 end = builder.step(0).stateAfter;
        assembly ("memory-safe") {
            mstore(add(steps, mload(steps)), end)
        }
        bytes32[] memory level = new bytes32[](86);
        for (uint256 i = 0; i < 86; ++i) {
            level[i] = keccak256(bytes.concat(hex"0e", bytes32(0), bytes4(uint32(48)), i == 85 ? end : bytes32(0)));
        }
        bytes32[] memory path = new bytes32[](7);
        for (uint256 height = 0; height < 7; ++height) {
            uint256 sibling = (85 >> height) ^ 1;
            path[height] = sibling < level.length ? level[sibling] : bytes32(0);
            bytes32[] memory up = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < up.length; ++i) {
                up[i] = builder.node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0));
            }
            level = up;
        }
        header.eventsRoot = level[0];
        hashes.push(constant_);
        hashes.push(constant_);
        publish(1, hashes);
        bytes[] memory signed = signatures(header);
        vm.prank(OPERATOR);
        settlement.register(header, hashes, steps, signed);

        Challenges.DataChallenge memory c;
        c.header = header;
        c.step = 85;
        c.stateAfter = end;
        c.proof = path;
        c.blobs = hashes;
        c.commitments = bytes.concat(commitment(".constant"), commitment(".constant"));
        bytes memory opening = vm.parseJsonBytesArray(blobs, ".constant.openings")[0];
        for (uint256 i = 0; i < 48; ++i) {
            c.openings = bytes.concat(c.openings, opening);
        }
        uint256 used = gasleft();
        vm.prank(CHALLENGER);
        settlement.challengeData(c);
        used -= gasleft();
        fell();
        holds(used < 8_400_000, "a data challenge must stay below half of what a transaction may use");
    }
}
