// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Challenges} from "../src/Challenges.sol";
import {Settlement} from "../src/Settlement.sol";
import {Store} from "../src/Store.sol";
import {Claim, Header, StateParts} from "../src/Types.sol";
import {Builder} from "./Builder.sol";
import {Token} from "./Tokens.sol";
import {Test} from "./Vm.sol";

/// @notice A contract, its people, and how blocks come to it.
abstract contract Fixture is Test {
    uint128 internal constant BOND = 1_000;
    uint32 internal constant WINDOW = 1 days;
    uint32 internal constant EXIT_DELAY = 7 days;
    uint32 internal constant BOND_DELAY = 2 days;
    uint32 internal constant DEPOSIT_DELAY = 3 days;
    uint32 internal constant BLOB_AGE = 12 hours;
    bytes32 internal constant EVIDENCE = keccak256("evidence");

    address internal constant OWNER = address(0x0a11);
    address internal constant OPERATOR = address(0x0be7);
    address internal constant CONSUMER = address(0xc0);
    address internal constant PROVIDER = address(0x90);
    address internal constant TREASURY = address(0x7e);
    address internal constant CHALLENGER = address(0xca);
    string internal constant NAME_C = "consumer:con_1";
    string internal constant NAME_E = "escrow:alloc_1";
    string internal constant NAME_P = "provider:prov_1";
    string internal constant NAME_F = "fees";

    bytes32 internal domain = keccak256("\x0atest");
    Token internal token;
    Settlement internal settlement;
    Builder internal builder;
    /// Private keys of the oracles, by ascending address.
    uint256[] internal keys;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        deploy(address(new Token()));
        postBond(BOND);
    }

    function deploy(address token_) internal {
        token = Token(token_);
        address[] memory oracles = sortedOracles(3);
        settlement = new Settlement(rules(), OWNER, OPERATOR, oracles, 2);
        builder = new Builder(domain);
        vm.blobhashes(new bytes32[](0));
    }

    function rules() internal view returns (Store.Rules memory) {
        return Store.Rules({
            domain: domain,
            token: IERC20(address(token)),
            minBond: BOND,
            challengeWindow: WINDOW,
            exitDelay: EXIT_DELAY,
            bondDelay: BOND_DELAY,
            depositDelay: DEPOSIT_DELAY,
            blobAge: BLOB_AGE
        });
    }

    function sortedOracles(uint256 count) internal returns (address[] memory oracles) {
        delete keys;
        for (uint256 i = 0; i < count; ++i) {
            keys.push(uint256(keccak256(abi.encode("oracle", i))));
        }
        for (uint256 i = 1; i < count; ++i) {
            for (uint256 j = i; j > 0 && vm.addr(keys[j - 1]) > vm.addr(keys[j]); --j) {
                (keys[j - 1], keys[j]) = (keys[j], keys[j - 1]);
            }
        }
        oracles = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            oracles[i] = vm.addr(keys[i]);
        }
    }

    function postBond(uint128 amount) internal {
        token.mint(OPERATOR, amount);
        vm.startPrank(OPERATOR);
        token.approve(address(settlement), amount);
        settlement.postBond(amount);
        vm.stopPrank();
    }

    function payIn(address owner, string memory name, uint128 amount) internal returns (uint64 index) {
        token.mint(address(this), amount);
        token.approve(address(settlement), amount);
        return settlement.deposit(owner, name, amount);
    }

    function signature(uint256 key, uint64 number, bytes32 evidenceRoot) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, settlement.evidenceDigest(number, evidenceRoot));
        return abi.encodePacked(r, s, v);
    }

    /// By the first two of the oracles.
    function signatures(Header memory header) internal view returns (bytes[] memory all) {
        all = new bytes[](2);
        all[0] = signature(keys[0], header.number, header.evidenceRoot);
        all[1] = signature(keys[1], header.number, header.evidenceRoot);
    }

    /// Names for blobs whose content no test opens.
    function blobsFor(Header memory header) internal pure returns (bytes32[] memory hashes) {
        hashes = new bytes32[](header.records == 0 ? 0 : header.records / 4096 + 1);
        for (uint256 i = 0; i < hashes.length; ++i) {
            hashes[i] = bytes32(uint256(1) << 248) | (keccak256(abi.encode(header, i)) >> 8);
        }
    }

    function publish(uint64 number, bytes32[] memory hashes) internal {
        if (hashes.length == 0) return;
        vm.blobhashes(hashes);
        vm.prank(OPERATOR);
        settlement.publish(number, 0);
    }

    function register(Header memory header, bytes memory steps) internal {
        bytes32[] memory blobs = blobsFor(header);
        publish(header.number, blobs);
        bytes[] memory signed = signatures(header);
        vm.prank(OPERATOR);
        settlement.register(header, blobs, steps, signed);
    }

    /// Registers what the builder has, and goes on with the next block.
    function registerNext() internal returns (Header memory header) {
        bytes memory steps;
        (header, steps) = builder.seal(EVIDENCE);
        register(header, steps);
        builder.next(header);
    }

    function finaliseNext() internal returns (Header memory header) {
        header = registerNext();
        pass(WINDOW);
        settlement.finalise(header.number);
    }

    function pass(uint256 time) internal {
        vm.warp(vm.getBlockTimestamp() + time);
    }

    /// Four accounts, 0 to 3: consumer, its escrow, provider, fees; the consumer paid 1,000 in.
    function openMarket() internal {
        builder.open(builder.keyOf(CONSUMER, NAME_C));
        builder.open(builder.keyOf(CONSUMER, NAME_E));
        builder.open(builder.keyOf(PROVIDER, NAME_P));
        builder.open(builder.keyOf(TREASURY, NAME_F));
        uint64 index = payIn(CONSUMER, NAME_C, 1_000);
        builder.deposit(index, 0, 1_000);
    }

    function claimOf(uint32 index) internal view returns (Claim memory) {
        if (index == 0) return builder.claim(0, CONSUMER, NAME_C);
        if (index == 1) return builder.claim(1, CONSUMER, NAME_E);
        if (index == 2) return builder.claim(2, PROVIDER, NAME_P);
        return builder.claim(3, TREASURY, NAME_F);
    }

    function claimsOf(uint32 index) internal view returns (Claim[] memory claims, bytes32[] memory siblings) {
        claims = new Claim[](1);
        claims[0] = claimOf(index);
        uint32[] memory indexes = new uint32[](1);
        indexes[0] = index;
        siblings = builder.proofOf(indexes);
    }

    function allClaims() internal view returns (Claim[] memory claims, bytes32[] memory siblings) {
        claims = new Claim[](4);
        uint32[] memory indexes = new uint32[](4);
        for (uint32 i = 0; i < 4; ++i) {
            claims[i] = claimOf(i);
            indexes[i] = i;
        }
        siblings = builder.proofOf(indexes);
    }

    function withdraw(uint64 number, uint32 index) internal {
        (Claim[] memory claims, bytes32[] memory siblings) = claimsOf(index);
        settlement.withdraw(number, builder.parts(), claims, siblings);
    }

    /// The challenge of a step that the builder has.
    function challengeOf(Header memory header, uint32 step) internal view returns (Challenges.StepChallenge memory c) {
        Builder.Step memory shown = builder.step(step);
        c.header = header;
        c.step = step;
        if (step != 0) {
            c.cellsBefore = builder.step(step - 1).cellsHash;
            c.proofBefore = builder.proof(step - 1);
        } else {
            c.proofBefore = new bytes32[](0);
        }
        c.state = shown.before;
        c.cells = shown.cells;
        c.stateAfter = shown.stateAfter;
        c.proof = builder.proof(step);
        c.witness = shown.witness;
    }
}
