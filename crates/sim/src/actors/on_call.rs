//! The person whom alerts call, at any hour: lets teardowns go on where too many of them had stopped all.

use futures::FutureExt as _;
use orchestrator::{
    core::{
        client::{database::Reader, schema},
        market::{ids::ProviderId, quantity::Micros},
    },
    service::allocation::Teardowns,
};

use super::Actor;

/// Time from one look to the next.
const EVERY: Micros = Micros::from_secs(90);

impl Actor {
    pub(super) async fn stand_by(mut self) {
        let providers: Vec<ProviderId> = self.stage.cast.providers.iter().map(|(id, _)| *id).collect();
        loop {
            self.sleep(EVERY).await;
            for provider in &providers {
                if self.has_stopped(*provider) {
                    self.resume(*provider).await;
                }
            }
        }
    }

    /// Whether an alert told of it. The store is in memory and answers at once.
    fn has_stopped(&self, provider: ProviderId) -> bool {
        let id = format!("teardowns/{provider}");
        let found = self.stage.world.store.memory.get(schema::META, &id).now_or_never();
        let found = found.and_then(Result::ok).flatten();
        let teardowns = found.and_then(|document| document.decode::<Teardowns>().ok());
        teardowns.is_some_and(|teardowns| teardowns.value.stopped_at.is_some())
    }

    async fn resume(&mut self, provider: ProviderId) {
        let key = self.key();
        let call = self.call(&key);
        // When nobody answers, the next look finds it again.
        let _ = self
            .ask(move |replica| {
                let call = call.clone();
                Box::pin(async move { replica.services.allocations.resume_teardowns(&call, provider).await })
            })
            .await;
    }
}
