//! What a host or a cloud must have before a client can work: plan, apply, verify.

#[cfg(feature = "aws")]
pub mod aws;
pub mod check;
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "kafka")]
pub mod topics;

use async_trait::async_trait;

use crate::error::Result;

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is there, as it should be.
    Exists,
    /// It will be made.
    Create,
    /// It is there and will be changed.
    Change,
    /// It is there and will be removed.
    Remove,
}

/// One resource of a plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What kind of thing it is, for people.
    pub kind: &'static str,
    /// Its name: a path, an address.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// What of it will be changed, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// What must be done, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// The steps, those that need nothing included.
    pub steps: Vec<Step>,
    /// What a person should know beside them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether everything is there already.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Exists)
    }

    /// Adds what another set of resources needs.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.notes.extend(other.notes);
    }
}

/// A set of resources that belong together.
pub trait Resource {
    /// What exists and what would be made; changes nothing.
    ///
    /// # Errors
    /// When what is there stands in the way.
    fn plan(&self) -> Result<Plan>;

    /// Makes what is missing and says what it did; a second call does nothing.
    ///
    /// # Errors
    /// When something can't be made. What was made before stays.
    fn apply(&self) -> Result<Plan>;

    /// Checks that everything is there and can be used.
    ///
    /// # Errors
    /// The first thing that is not so.
    fn verify(&self) -> Result<()>;
}

/// A set of resources at a service elsewhere.
#[async_trait]
pub trait RemoteResource: Send + Sync {
    /// What exists, what would be made and what would be changed; changes nothing.
    ///
    /// # Errors
    /// When what is there stands in the way, or the service can't be asked.
    async fn plan(&self) -> Result<Plan>;

    /// Makes what is missing, mends what differs, and says what it did; a second call does nothing.
    ///
    /// # Errors
    /// When something can't be made. What was made before stays.
    async fn apply(&self) -> Result<Plan>;

    /// Checks that everything is there as it should be.
    ///
    /// # Errors
    /// The first thing that is not so.
    async fn verify(&self) -> Result<()>;

    /// What [`RemoteResource::destroy`] would remove.
    ///
    /// # Errors
    /// When the service can't be asked.
    async fn plan_destroy(&self) -> Result<Plan>;

    /// Removes what [`RemoteResource::apply`] makes, and nothing else; says what it did.
    ///
    /// # Errors
    /// When something can't be removed, such as a bucket with objects. What was removed before is gone.
    async fn destroy(&self) -> Result<Plan>;
}
