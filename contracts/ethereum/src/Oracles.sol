// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Store} from "./Store.sol";

/// @title Who vouches for the evidence
/// @notice k of n oracles sign the evidence root of each block (EIP-712, name `Orchestrator Settlement`, version 1).
abstract contract Oracles is Store, EIP712 {
    error WrongOracles();
    error WrongSignatures();

    event OraclesChanged(address[] oracles, uint256 threshold);

    bytes32 internal constant EVIDENCE_TYPE = keccak256("Evidence(bytes32 domain,uint64 number,bytes32 evidenceRoot)");

    address[] internal _oracles;
    /// @notice How many of the oracles must sign.
    uint256 public threshold;
    mapping(address => bool) public isOracle;

    constructor(address[] memory oracles_, uint256 threshold_) EIP712("Orchestrator Settlement", "1") {
        _setOracles(oracles_, threshold_);
    }

    function setOracles(address[] calldata next, uint256 threshold_) external onlyOwner {
        _setOracles(next, threshold_);
    }

    function oracles() external view returns (address[] memory) {
        return _oracles;
    }

    /// @notice What oracles sign for a block.
    function evidenceDigest(uint64 number, bytes32 evidenceRoot) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(EVIDENCE_TYPE, DOMAIN, number, evidenceRoot)));
    }

    /// Signers come in ascending order, so that each counts once; more than needed are fine.
    function _checkSignatures(uint64 number, bytes32 evidenceRoot, bytes[] calldata signatures) internal view {
        require(signatures.length >= threshold, WrongSignatures());
        bytes32 digest = evidenceDigest(number, evidenceRoot);
        address before = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            address signer = ECDSA.recover(digest, signatures[i]);
            require(signer > before && isOracle[signer], WrongSignatures());
            before = signer;
        }
    }

    function _setOracles(address[] memory next, uint256 threshold_) private {
        require(threshold_ != 0 && threshold_ <= next.length && next.length <= 64, WrongOracles());
        for (uint256 i = 0; i < _oracles.length; ++i) {
            isOracle[_oracles[i]] = false;
        }
        for (uint256 i = 0; i < next.length; ++i) {
            require(next[i] != address(0) && !isOracle[next[i]], WrongOracles());
            isOracle[next[i]] = true;
        }
        _oracles = next;
        threshold = threshold_;
        emit OraclesChanged(next, threshold_);
    }
}
