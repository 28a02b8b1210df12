//! The address `log:`: a notification as a line of the daemon's log.

use crate::core::client::notification::Notification;

/// The address.
pub(super) const ADDRESS: &str = "log:";

/// Writes a notification to the log.
pub(super) fn write(topic: &str, notification: &Notification) {
    tracing::warn!(
        topic,
        id = notification.id,
        subject = notification.subject,
        body = %notification.body,
        "notification"
    );
}
