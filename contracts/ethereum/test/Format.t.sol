// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Challenges} from "../src/Challenges.sol";
import {Settlement} from "../src/Settlement.sol";
import {Claim, Header, StateParts} from "../src/Types.sol";
import {Vectors} from "./Vectors.sol";

/// @notice The builder, the contract and the plain JavaScript agree on every byte of the format.
contract FormatTest is Vectors {
    function read(string memory at_, string memory what) internal view returns (bytes32) {
        return vm.parseJsonBytes32(json, string.concat(at_, what));
    }

    function test_the_empty_state() public view {
        same(builder.stateRoot(builder.state()), vm.parseJsonBytes32(json, ".genesisRoot"));
        same(builder.stateHash(builder.state()), vm.parseJsonBytes32(json, ".genesisState"));
        same(builder.state().accounts, vm.parseJsonBytes32(json, ".emptyTree"));
        same(settlement.blockAt(0).stateRoot, vm.parseJsonBytes32(json, ".genesisRoot"));
        same(settlement.STEP_RECORDS(), vm.parseJsonUint(json, ".stepRecords"));
    }

    function test_two_blocks() public {
        firstBlock();
        agree(".blocks[0]", 5);
        secondBlock();
        agree(".blocks[1]", 5);
    }

    function agree(string memory at_, uint32 accounts) internal {
        (Header memory header, bytes memory steps) = sealVector(at_);
        same(header.stateRoot, read(at_, ".header.stateRoot"));
        same(header.eventsRoot, read(at_, ".header.eventsRoot"));
        same(builder.headerHash(header), read(at_, ".hash"));
        same(steps, vm.parseJsonBytes(json, string.concat(at_, ".registered")));
        register(header, steps);
        same(settlement.blockAt(header.number).hash, read(at_, ".hash"));
        for (uint32 i = 0; i < builder.stepCount(); ++i) {
            string memory step = string.concat(at_, ".steps[", vm.toString(i), "]");
            same(builder.stepHash(i), read(step, ".leaf"));
            same(keccak256(builder.step(i).cells), read(step, ".cells"));
            same(builder.step(i).witness, vm.parseJsonBytes(json, string.concat(step, ".witness")));
            Challenges.StepChallenge memory c = challengeOf(header, i);
            vm.expectRevert(Challenges.NoFraud.selector);
            settlement.challengeStep(c);
        }
        // What oracles sign, for the contract of the vectors.
        address there = vm.parseJsonAddress(json, ".contract");
        vm.etch(there, address(settlement).code);
        vm.chainId(vm.parseJsonUint(json, ".chainId"));
        bytes32 digest = Settlement(there).evidenceDigest(header.number, header.evidenceRoot);
        same(digest, read(at_, ".evidenceDigest"));

        builder.next(header);
        pass(WINDOW);
        settlement.finalise(header.number);
        many(at_, header);
        for (uint32 i = 0; i < accounts; ++i) {
            claim(at_, header, i);
        }
        same(settlement.totalPaid(), 90_000);
    }

    /// And so is its proof for several accounts.
    function many(string memory at_, Header memory header) internal {
        Claim[] memory claims = new Claim[](3);
        claims[0] = builder.claim(0, CONSUMER, NAME_C);
        claims[1] = builder.claim(2, PROVIDER, NAME_P);
        claims[2] = builder.claim(4, TREASURY, NAME_F);
        bytes32[] memory siblings = vm.parseJsonBytes32Array(json, string.concat(at_, ".many.siblings"));
        settlement.withdrawMany(header.number, StateParts(read(at_, ".market"), 5, header.total), claims, siblings);
        same(token.balanceOf(PROVIDER), 90_000);
    }

    /// The accounts' proofs of the JavaScript are good for the contract.
    function claim(string memory at_, Header memory header, uint32 index) internal {
        string memory account = string.concat(at_, ".accounts[", vm.toString(index), "]");
        Claim[] memory claims = new Claim[](1);
        claims[0] = Claim({
            owner: vm.parseJsonAddress(json, string.concat(account, ".owner")),
            index: index,
            balance: uint128(vm.parseJsonUint(json, string.concat(account, ".balance"))),
            withdrawable: uint128(vm.parseJsonUint(json, string.concat(account, ".withdrawable"))),
            name: vm.parseJsonString(json, string.concat(account, ".name"))
        });
        same(builder.leafOf(builder.account(index)), read(account, ".leaf"));
        bytes32[] memory siblings = vm.parseJsonBytes32Array(json, string.concat(account, ".siblings"));
        StateParts memory parts = StateParts(read(at_, ".market"), 5, header.total);
        settlement.withdraw(header.number, parts, claims, siblings);
        same(token.balanceOf(claims[0].owner), claims[0].owner == PROVIDER ? 90_000 : 0);
    }
}
