//! Hears from the control plane which root signs, so that a certificate under another one is replaced soon.

use std::{path::Path, time::Duration};

use corinth_api::{
    identity::{IDENTITY_MESSAGE_MAX_BYTES, Issuer},
    wire::identity::{self as wire, identity_client::IdentityClient},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{ANSWER_MAX, GAP_MIN, Root};
use crate::feed::connect;

/// The longest gap between two conversations: a control plane that returns is found within it.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Passes on what the control plane at `socket` tells, in one conversation after another. Never ends.
pub(super) async fn follow(socket: &Path, told: &watch::Sender<Option<Root>>) {
    let mut gap = GAP_MIN;
    loop {
        if converse(socket, told).await {
            gap = GAP_MIN;
        }
        // Spread, so that gateways that lost it together do not return together.
        sleep(gap.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        gap = (gap * 2).min(GAP_MAX);
    }
}

/// One conversation, from dialling to its end. Returns whether anything was told. That the control plane is away is told
/// in the log by those who need it for more.
async fn converse(socket: &Path, told: &watch::Sender<Option<Root>>) -> bool {
    let Ok(channel) = connect::channel(socket).await else {
        return false;
    };
    let mut client =
        IdentityClient::new(channel).max_decoding_message_size(IDENTITY_MESSAGE_MAX_BYTES);
    let asked = client.follow_issuer(wire::FollowIssuerRequest {});
    let Ok(Ok(answer)) = timeout(ANSWER_MAX, asked).await else {
        return false;
    };
    let mut issuers = answer.into_inner();
    let mut has_told = false;
    while let Ok(Some(issuer)) = issuers.message().await {
        match Issuer::try_from(issuer) {
            Ok(issuer) => {
                told.send_replace(Some(Root::from(issuer.into_der())));
                has_told = true;
            }
            Err(error) => debug!(%error, "the control plane tells of a root that is none"),
        }
    }
    has_told
}
