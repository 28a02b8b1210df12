//! A process that dies at a write.

use super::*;

/// Lets writes through until it dies: the fatal one takes hold, or not, and from then on nothing is answered.
pub struct Mortal {
    inner: Arc<MemoryDatabase>,
    left: AtomicI64,
    applies_the_last: bool,
}

impl Mortal {
    pub fn new(inner: Arc<MemoryDatabase>, lives: i64, applies_the_last: bool) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicI64::new(lives), applies_the_last })
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Nothing is answered from now on.
    pub fn kill(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    /// Writes that it saw: claims and commits.
    pub fn writes(&self) -> i64 {
        i64::MAX.saturating_sub(self.left.load(Ordering::SeqCst))
    }

    /// Whether this write is to be carried out, and whether it is answered.
    fn passes(&self) -> (bool, bool) {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        (left > 0 || (left == 0 && self.applies_the_last), left > 0)
    }
}

fn dead<T>() -> DbResult<T> {
    Err(DatabaseError::Unavailable("the process has died".into()))
}

#[async_trait]
impl Committer for Mortal {
    async fn commit(&self, changeset: Changeset) -> DbResult<()> {
        let (happens, answered) = self.passes();
        if happens {
            self.inner.commit(changeset).await?;
        }
        if answered { Ok(()) } else { dead() }
    }
}

#[async_trait]
impl Claimer for Mortal {
    async fn claim(&self, claim: Claim) -> DbResult<Vec<Document>> {
        let (happens, answered) = self.passes();
        let claimed = if happens { self.inner.claim(claim).await? } else { Vec::new() };
        if answered { Ok(claimed) } else { dead() }
    }
}
