//! A group's queues that were deleted while they were read: made again, as far as it is known how.

use longshore_core::Result;

use crate::ask::Questions;
use crate::make::{OURS, bind_all, declare};
use crate::names::GroupNames;
use crate::objects;
use crate::shared::Shared;
use crate::unrouted;

/// Makes the topic, the group's queue and its suspect lane where they are missing, and gives the
/// queue what waited for it meanwhile. Not the dead-letter queue: how long it keeps its letters is
/// known to whoever declares the group.
///
/// # Errors
/// Of the connection, or of the server.
pub(crate) async fn again(shared: &Shared, names: &GroupNames) -> Result<()> {
    let mut questions = Questions::new(&shared.outgoing, shared.deadline());
    let mut objects = vec![objects::topic(&names.topic)];
    objects.extend(objects::group(&shared.config, names, None));
    for object in &objects {
        // What is there with other settings is there, and serves.
        let made = declare(&mut questions, object, OURS).await?;
        if let Err(native) = made {
            tracing::debug!(object = object.label, error = %native, "it is not made again");
        }
    }
    bind_all(&mut questions, &objects.iter().collect::<Vec<_>>()).await?;
    unrouted::bring_back(shared, &names.queue).await
}
