//! The ports as a replica of the simulation sees them: real or simple implementations behind faults.

pub mod broker;
pub mod database;
pub mod messages;
pub mod provider;
pub mod settlement;
pub mod small;

/// A client behind the faults of a process, where each method does nothing but meet them.
macro_rules! behind {
    (
        $(#[$doc:meta])*
        pub struct $name:ident(dyn $client:ident);
        at $port:expr, or $lost:expr, as $error:ty;

        $(fn $method:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*
    ) => {
        $(#[$doc])*
        pub struct $name(pub Arc<dyn $client>, pub Faults);

        #[async_trait]
        impl $client for $name {
            $(
                async fn $method(&self, $($argument: $type),*) -> Result<$answer, $error> {
                    $crate::faults::through!(self.1, $port, self.0.$method($($argument),*), $lost)
                }
            )*
        }
    };
}

pub(crate) use behind;
