//! The port to those who vouch for evidence on a settlement layer: oracles whose signatures of a block's evidence root the layer
//! asks for. They sign with keys of the layer's kind; the keys of their evidence reports are others.

use crate::core::market::{
    address::Address,
    block::{BlockHeader, Hash32},
};

/// Why a text is no attestation of a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It has another form.
    #[error("a signature is `0x` and 130 hex digits: r, s and v")]
    Form,
    /// Nobody signed this block so.
    #[error("the signature is not one of this block's evidence")]
    NoSigner,
    /// Somebody did whose word does not count.
    #[error("{0} is no oracle of the settlement layer")]
    Stranger(Address),
}

/// What a settlement layer asks of oracles.
pub trait EvidenceOracles: Send + Sync {
    /// How many must sign, as the layer last said.
    fn threshold(&self) -> usize;

    /// What they sign for a block.
    fn digest(&self, header: &BlockHeader) -> Hash32;

    /// The oracle whose signature (65 bytes in hex) of a block this is.
    ///
    /// # Errors
    /// [`AttestationError`].
    fn signer(&self, header: &BlockHeader, signature: &str) -> Result<Address, AttestationError>;

    /// The signature of an oracle whose key this process holds; `None` when it holds none.
    fn own(&self, header: &BlockHeader) -> Option<String>;
}
