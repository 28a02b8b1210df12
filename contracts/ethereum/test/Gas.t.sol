// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {Claim, Header, StateParts} from "../src/Types.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Measures what whole transactions cost: with their call data, at the floor price of EIP-7623 where that is more,
/// on storage that is cold, and without refunds. `gas.json` holds what they may cost; with `GAS_RECORD=true` it is written.
abstract contract Measure is Fixture {
    string internal constant FILE = "gas.json";

    event Figure(string name, uint256 gas);

    /// What a transaction with this call costs.
    function transaction(address sender, bytes memory data) internal returns (uint256) {
        vm.cool(address(settlement));
        vm.cool(address(settlement.EXECUTOR()));
        vm.cool(address(token));
        vm.prank(sender);
        uint256 used = gasleft();
        (bool ok, bytes memory answer) = address(settlement).call(data);
        used -= gasleft();
        if (!ok) revert Untrue(string(answer));
        uint256 tokens = 0;
        for (uint256 i = 0; i < data.length; ++i) {
            tokens += data[i] == 0 ? 1 : 4;
        }
        (uint256 usual, uint256 floor) = (4 * tokens + used, 10 * tokens);
        return 21_000 + (usual > floor ? usual : floor);
    }

    /// Compares with the file; growth fails.
    function figure(string memory name, uint256 value) internal {
        emit Figure(name, value);
        string memory key = string.concat(".", name);
        if (vm.envOr("GAS_RECORD", false)) {
            vm.writeJson(vm.toString(value), FILE, key);
            return;
        }
        uint256 limit = vm.parseJsonUint(vm.readFile(FILE), key);
        if (value > limit) revert TooLarge(name, value, limit);
    }
}

/// @notice The dearest step that can be challenged: every transfer touches two accounts that nothing touched before, in a
/// tree that is full, and only the state at the end is wrong.
contract GasChallengeTest is Measure {
    Header internal header;
    bytes internal call_;

    function setUp() public override {
        super.setUp();
        builder.fill(type(uint32).max);
        uint32 count = 2 * builder.K();
        for (uint32 i = 0; i < count; ++i) {
            builder.put(place(i), name(i), type(uint128).max / 3, 0);
        }
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence(bytes30(keccak256("evidence")));
        }
        for (uint32 i = 0; i < count; i += 2) {
            uint128 amount = type(uint128).max / 7 + i;
            builder.showAt(place(i), name(i), type(uint128).max / 3, type(uint128).max / 3 - amount);
            builder.showAt(place(i + 1), name(i + 1), type(uint128).max / 3, type(uint128).max / 3 + amount);
            builder.raw(builder.transferCell(4, place(i), place(i + 1), amount));
        }
        bytes memory steps;
        (header, steps) = builder.sealWith(keccak256("all mine"));
        register(header, steps);
        call_ = abi.encodeCall(settlement.challengeStep, (challengeOf(header, 1)));
        // As many others as there can be fall with it.
        Header memory last = header;
        for (uint256 i = 1; i < settlement.MAX_OPEN(); ++i) {
            last.parent = builder.headerHash(last);
            (last.number, last.records) = (last.number + 1, 0);
            (last.eventsRoot, last.evidenceRoot) = (0, 0);
            register(last, "");
        }
    }

    function place(uint32 i) internal pure returns (uint32) {
        return i * 44_739_242 + 17;
    }

    function name(uint32 i) internal pure returns (bytes30) {
        return bytes30(keccak256(abi.encode("account", i)));
    }

    function test_gas_of_the_dearest_challenge() public {
        bytes memory data = call_;
        uint256 gas = transaction(CHALLENGER, data);
        same(settlement.lastRegistered(), 0);
        holds(gas < 8_400_000, "a challenge must stay below half of what a transaction may use");
        holds(data.length < 128 * 1024, "nodes pass on no transaction of 128 KiB or more");
        figure("challengeStepWorst", gas);
        figure("challengeStepWorstBytes", data.length);
    }
}

/// @notice 10,000 deals of 100 providers: one payment each, one release a provider, all claims in one proof. Storage was
/// written before: the providers have been paid once.
contract GasDealsTest is Measure {
    uint32 internal constant DEALS = 10_000;
    uint32 internal constant PROVIDERS = 100;
    Header internal header;
    bytes internal steps;
    bytes internal all;
    bytes internal single;

    function setUp() public override {
        super.setUp();
        builder.fill(10_200);
        paidSoFar(1_000);
        builder.setTotal(10_000_000, 1);
        payIn(CONSUMER, NAME_C, 10_000_000);
        builder.evidence("root");
        finaliseNext();
        settlement.withdrawMany(1, builder.parts(), claims(0, PROVIDERS), proof(0, PROVIDERS));
        same(settlement.totalPaid(), 100_000);

        paidSoFar(2_000);
        for (uint32 i = 0; i < DEALS; ++i) {
            builder.raw(builder.transferCell(5, 200 + i, place(i % PROVIDERS), 1_000_000 + i));
        }
        for (uint32 i = 0; i < PROVIDERS; ++i) {
            builder.raw(builder.transferCell(12, place(i), place(i), 1_000));
        }
        (header, steps) = builder.seal(EVIDENCE);
        all = abi.encodeCall(settlement.withdrawMany, (2, builder.parts(), claims(0, PROVIDERS), proof(0, PROVIDERS)));
        single = abi.encodeCall(settlement.withdraw, (2, builder.parts(), claims(50, 1), proof(50, 1)));
    }

    function paidSoFar(uint128 amount) private {
        for (uint32 i = 0; i < PROVIDERS; ++i) {
            builder.put(place(i), builder.keyOf(owner(i), name(i)), 123_456_789, amount);
        }
    }

    function place(uint32 i) private pure returns (uint32) {
        return 50 + i * 101;
    }

    function owner(uint32 i) private pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode("owner", i)))));
    }

    function name(uint32 i) private pure returns (string memory) {
        return string.concat("provider:prov_01938f5e-7b7a-7cc3-98c4-dc0c0c07", vm.toString(1_000 + i));
    }

    function claims(uint32 first, uint32 count) private view returns (Claim[] memory out) {
        out = new Claim[](count);
        for (uint32 i = 0; i < count; ++i) {
            out[i] = builder.claim(place(first + i), owner(first + i), name(first + i));
        }
    }

    function proof(uint32 first, uint32 count) private view returns (bytes32[] memory) {
        uint32[] memory indexes = new uint32[](count);
        for (uint32 i = 0; i < count; ++i) {
            indexes[i] = place(first + i);
        }
        return builder.proofOf(indexes);
    }

    function settle() private returns (uint256 published, uint256 registered, uint256 finalised) {
        bytes32[] memory blobs = blobsFor(header);
        same(blobs.length, 3);
        vm.blobhashes(blobs);
        published = transaction(OPERATOR, abi.encodeCall(settlement.publish, (2, 0)));
        registered =
            transaction(OPERATOR, abi.encodeCall(settlement.register, (header, blobs, steps, signatures(header))));
        pass(WINDOW);
        finalised = transaction(OPERATOR, abi.encodeCall(settlement.finalise, (2)));
    }

    function test_gas_of_10000_deals() public {
        (uint256 published, uint256 registered, uint256 finalised) = settle();
        uint256 withdrawn = transaction(address(this), all);
        same(token.balanceOf(owner(0)), 2_000);
        same(settlement.totalPaid(), 200_000);
        figure("publishThreeBlobs", published);
        figure("register10000", registered);
        figure("finalise", finalised);
        figure("withdrawMany100", withdrawn);
        figure("perDealBatched", (published + registered + finalised + withdrawn) / DEALS);
    }

    function test_gas_of_10000_deals_claimed_singly() public {
        (uint256 published, uint256 registered, uint256 finalised) = settle();
        uint256 withdrawn = transaction(address(this), single);
        same(token.balanceOf(owner(50)), 2_000);
        figure("withdrawOne", withdrawn);
        figure("perDealSingly", (published + registered + finalised + PROVIDERS * withdrawn) / DEALS);
    }

    function test_gas_of_the_deployment() public {
        address[] memory oracles = settlement.oracles();
        bytes memory data =
            abi.encodePacked(type(Settlement).creationCode, abi.encode(rules(), OWNER, OPERATOR, oracles, uint256(2)));
        uint256 used = gasleft();
        address made;
        assembly ("memory-safe") {
            made := create(0, add(data, 32), mload(data))
        }
        used -= gasleft();
        holds(made != address(0), "deployed");
        uint256 tokens = 0;
        for (uint256 i = 0; i < data.length; ++i) {
            tokens += data[i] == 0 ? 1 : 4;
        }
        uint256 gas = 21_000 + used + 4 * tokens;
        holds(gas < 16_777_216, "a transaction may use no more");
        holds(data.length <= 49_152, "nor carry more code");
        figure("deploy", gas);
    }

    function test_gas_of_a_deposit() public {
        token.mint(address(this), 100);
        token.approve(address(settlement), 100);
        bytes memory data = abi.encodeCall(settlement.deposit, (CONSUMER, NAME_C, 100));
        figure("deposit", transaction(address(this), data));
    }
}
