//! One conversation with one control plane.

use std::{error::Error, fmt, future::Future, io, time::Duration};

use corinth_api::wire::admin::{StatusRequest, admin_client::AdminClient, status_request::Kind};
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinSet, time::timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::{control::Place, exit::Exit, explain, run, terminal::plain, trouble::Trouble};

/// How long an answer may take unless told otherwise: it is on this machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a change may take unless told otherwise: linking calls on the other cluster.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read: 100,000 routes are half of it.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// The generated client.
pub(crate) type Client = AdminClient<Channel>;

/// A connection to a control plane.
#[derive(Clone)]
pub(crate) struct Control {
    place: Place,
    client: Client,
    within: Option<Duration>,
}

/// Connects to `place`, does `what` there on a runtime of its own, and ends.
pub(crate) fn act<T, F: Future<Output = Result<T, Trouble>>>(
    place: Place,
    within: Option<Duration>,
    what: impl FnOnce(Control) -> F,
) -> Result<T, Trouble> {
    run::runtime()?.block_on(async { what(Control::connect(place, within).await?).await })
}

/// Asks all at once; the answers in the order of `places`.
pub(crate) fn ask_each<T, F>(
    places: Vec<Place>,
    within: Option<Duration>,
    what: impl Fn(Control) -> F + Clone + Send + 'static,
) -> Result<Vec<(Place, Result<T, Trouble>)>, Trouble>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Trouble>> + Send + 'static,
{
    run::runtime()?.block_on(async {
        let mut asked = JoinSet::new();
        for (number, place) in places.into_iter().enumerate() {
            let what = what.clone();
            asked.spawn(async move {
                let answer = match Control::connect(place.clone(), within).await {
                    Ok(control) => what(control).await,
                    Err(trouble) => Err(trouble),
                };
                (number, place, answer)
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(number, ..)| *number);
        let answers = answers.into_iter();
        Ok(answers.map(|(_, place, answer)| (place, answer)).collect())
    })
}

impl Control {
    pub(crate) async fn connect(place: Place, within: Option<Duration>) -> Result<Self, Trouble> {
        // The library connects when first asked, and then no longer says what the system said.
        UnixStream::connect(&place.socket)
            .await
            .map_err(|error| not_connected(&place, &error))?;
        let path = place.socket.to_str();
        let endpoint = path.map(|path| Endpoint::from_shared(format!("unix:{path}")));
        let Some(Ok(endpoint)) = endpoint else {
            let why = "the path of its socket is not UTF-8 text";
            return Err(unreachable(&place, why));
        };
        let client = AdminClient::new(endpoint.connect_lazy());
        Ok(Self {
            place,
            client: client.max_decoding_message_size(ANSWER_MAX_BYTES),
            within,
        })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What the control plane says of `kind`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, kind: Kind) -> Result<T, Trouble> {
        self.ask_about(kind, "").await
    }

    /// The same, of the thing called `name`.
    pub(crate) async fn ask_about<T: DeserializeOwned>(
        &self,
        kind: Kind,
        name: &str,
    ) -> Result<T, Trouble> {
        let request = StatusRequest {
            kind: kind.into(),
            name: name.to_owned(),
        };
        let mut client = self.client.clone();
        let within = self.within.unwrap_or(ANSWER_TIMEOUT);
        let answer = self.call("it could not be looked up", within, client.status(request));
        let answer = answer.await?;
        serde_json::from_str(&answer.json).map_err(|error| {
            Trouble::new(
                Exit::Unreachable,
                format!(
                    "the answer of the control plane at {} cannot be read",
                    self.place
                ),
                error,
                "use the `corinth` of the version that the control plane runs",
            )
        })
    }

    /// Asks for a change; `failed` says in words that it did not come about.
    pub(crate) async fn change<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        failed: &str,
        change: impl FnOnce(Client) -> F,
    ) -> Result<T, Trouble> {
        let within = self.within.unwrap_or(CHANGE_TIMEOUT);
        self.call(failed, within, change(self.client.clone())).await
    }

    async fn call<T>(
        &self,
        failed: &str,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Trouble> {
        match timeout(within, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.trouble(failed, &status)),
            Err(_) => Err(unreachable(
                &self.place,
                format!("nothing came within {within:?}"),
            )),
        }
    }

    fn trouble(&self, failed: &str, status: &Status) -> Trouble {
        // Set by the library alone: there was no answer.
        if let Some(cause) = status.source() {
            return unreachable(&self.place, innermost(cause));
        }
        let code = status.metadata().get("corinth-code");
        let code = code.and_then(|code| code.to_str().ok()).map(plain);
        let message = plain(status.message());
        let why = match &code {
            Some(code) if !message.contains(code.as_str()) => format!("{message} ({code})"),
            Some(_) | None => message,
        };
        let remedy = code.as_deref().and_then(explain::remedy);
        let remedy = remedy.map_or_else(
            || {
                "look into the log of the control plane; corinth status shows how it stands"
                    .to_owned()
            },
            |(remedy, code)| format!("{remedy}; more with corinth explain {code}"),
        );
        Trouble::new(exit(status.code()), failed, why, remedy)
    }
}

fn exit(code: Code) -> Exit {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the library's codes, not ours"
    )]
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::PermissionDenied | Code::Unauthenticated | Code::Unavailable => Exit::Unreachable,
        Code::DeadlineExceeded => Exit::Unreachable,
        Code::NotFound => Exit::Found,
        _ => Exit::Internal,
    }
}

fn not_connected(place: &Place, error: &io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Trouble::forbidden(
            format!("this user may not ask the control plane at {place}"),
            error,
            "ask as the user that the control plane runs as: only who owns its socket may open it",
        );
    }
    unreachable(place, error)
}

fn unreachable(place: &Place, why: impl fmt::Display) -> Trouble {
    Trouble::new(
        Exit::Unreachable,
        format!("no answer from the control plane at {place}"),
        why,
        "does the node run, as a user whose socket you may open? \
         Name another one with --config FILE or --control PATH",
    )
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::trouble::Cause;

    #[test]
    fn who_may_not_ask_is_told_so_and_not_to_start_anything() {
        let place = Place::socket(Path::new("/c.sock"));
        let trouble = |kind: io::ErrorKind| not_connected(&place, &kind.into());
        let forbidden = trouble(io::ErrorKind::PermissionDenied);
        assert_eq!(
            (forbidden.exit, forbidden.cause),
            (Exit::Unreachable, Cause::Forbidden)
        );
        assert!(
            forbidden.remedy.starts_with("ask as the user"),
            "{}",
            forbidden.remedy
        );
        let gone = trouble(io::ErrorKind::ConnectionRefused);
        assert_eq!((gone.exit, gone.cause), (Exit::Unreachable, Cause::Other));
    }
}
