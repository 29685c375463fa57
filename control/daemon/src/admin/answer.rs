//! From one request to its answer.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time;
use tracing::{info, warn};

use super::{AdminError, AdminPages, BODY_MAX_BYTES, Page, Render, host};
use crate::logging::{LogLevel, LoggingError};
use crate::metrics;
use crate::ready::ReadyState;

/// Paths that are always ours.
const BUILT_IN: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/log-level"];

/// How much of a body that is too large is read before the answer: closing on unread bytes would reset the connection
/// and the client would not see why.
const DISCARD_MAX_BYTES: u64 = 64 << 10;

/// Longest time a temporary log level may last.
const LEVEL_SECONDS_MAX: u64 = 24 * 60 * 60;

type Answer = Response<Full<Bytes>>;

/// What is answered to whom.
pub(super) struct Answers {
    pages: AdminPages,
    body_timeout: Duration,
    /// The task that will take back a temporary log level.
    reverting: Mutex<Option<AbortHandle>>,
}

/// What a path leads to.
enum Subject<'a> {
    Index,
    Live,
    Ready,
    Metrics,
    LogLevel(&'a LogLevel),
    Own(&'a Render),
}

enum BodyError {
    TooLarge,
    Cut,
}

impl Answers {
    pub(super) fn new(pages: AdminPages, body_timeout: Duration) -> Result<Self, AdminError> {
        let is_free = |path: &str| path.starts_with('/') && !path.contains(['?', '#']);
        let mut paths = pages.pages.keys();
        if let Some(path) = paths.find(|path| BUILT_IN.contains(path) || !is_free(path)) {
            return Err(AdminError::Path(path));
        }
        Ok(Self {
            pages,
            body_timeout,
            reverting: Mutex::new(None),
        })
    }

    /// The answer to any request whatever.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = self.choose(request).await;
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn choose(&self, request: Request<Incoming>) -> Answer {
        if !host::is_loopback(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "this server answers only to the names localhost, 127.0.0.1 and [::1]\n",
            );
        }
        let (head, body) = request.into_parts();
        // Only one page wants a body, but each is taken off the socket, see DISCARD_MAX_BYTES.
        let body = match time::timeout(self.body_timeout, collect(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge)) => {
                return text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("a body may have {BODY_MAX_BYTES} bytes\n"),
                );
            }
            Ok(Err(BodyError::Cut)) => return bad("the body is not as long as announced"),
            Err(_) => {
                return text(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not arrive in time\n",
                );
            }
        };
        let query = head.uri.query().unwrap_or_default();
        let Some(subject) = self.find(head.uri.path()) else {
            return text(
                StatusCode::NOT_FOUND,
                format!("no such page; there are:\n{}", self.index()),
            );
        };
        match (head.method, subject) {
            (Method::PUT, Subject::LogLevel(level)) => self.set_level(level, &body, query),
            (Method::GET | Method::HEAD, subject) => self.show(subject, query),
            (_, Subject::LogLevel(_)) => wrong_method("GET, HEAD, PUT"),
            _ => wrong_method("GET, HEAD"),
        }
    }

    fn find(&self, path: &str) -> Option<Subject<'_>> {
        match path {
            "/" => Some(Subject::Index),
            "/livez" => Some(Subject::Live),
            "/readyz" => Some(Subject::Ready),
            "/metrics" => Some(Subject::Metrics),
            "/log-level" => self.pages.log_level.as_ref().map(Subject::LogLevel),
            _ => self.pages.pages.get(path).map(Subject::Own),
        }
    }

    fn show(&self, subject: Subject<'_>, query: &str) -> Answer {
        match subject {
            Subject::Index => text(StatusCode::OK, self.index()),
            Subject::Live => text(StatusCode::OK, "ok\n"),
            Subject::Ready => self.ready(query),
            Subject::Metrics => self.metrics(),
            Subject::LogLevel(level) => text(StatusCode::OK, format!("{}\n", level.current())),
            Subject::Own(render) => page(StatusCode::OK, render()),
        }
    }

    fn index(&self) -> String {
        let has_level = self.pages.log_level.is_some();
        let built_in = BUILT_IN
            .into_iter()
            .filter(|path| *path != "/" && (*path != "/log-level" || has_level));
        built_in
            .chain(self.pages.pages.keys().copied())
            .map(|path| format!("{path}\n"))
            .collect()
    }

    fn ready(&self, query: &str) -> Answer {
        let is_verbose = query
            .split('&')
            .any(|key| key == "verbose" || key.starts_with("verbose="));
        let readiness = &self.pages.readiness;
        // One look, or the verdict and the reasons could disagree.
        let state = readiness.state();
        let status = if state == ReadyState::Ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut body = state.to_string();
        if is_verbose {
            for remark in &self.pages.remarks {
                body.push('\n');
                body.push_str(&remark());
            }
        } else {
            body.truncate(body.find('\n').unwrap_or(body.len()));
        }
        body.push('\n');
        text(status, body)
    }

    fn metrics(&self) -> Answer {
        match self.pages.metrics.text() {
            Ok(body) => page(
                StatusCode::OK,
                Page {
                    content_type: metrics::CONTENT_TYPE,
                    body,
                },
            ),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn set_level(&self, level: &LogLevel, directive: &[u8], query: &str) -> Answer {
        let Ok(directive) = std::str::from_utf8(directive) else {
            return bad("the body is not UTF-8");
        };
        let directive = directive.trim();
        let seconds = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("for", seconds)) => match seconds.parse() {
                Ok(seconds @ 1..=LEVEL_SECONDS_MAX) => Some(seconds),
                _ => return bad(format!("for= takes 1 to {LEVEL_SECONDS_MAX} seconds")),
            },
            _ => return bad("the only parameter is for=SECONDS"),
        };
        let before = level.current();
        let result = match seconds {
            None => level.set(directive),
            Some(seconds) => self.set_level_for(level, directive, seconds),
        };
        if let Err(error) = result {
            return bad(error.to_string());
        }
        if seconds.is_none()
            && let Some(reverting) = self.reverting.lock().take()
        {
            reverting.abort();
        }
        warn!(%before, now = directive, seconds, "log level changed");
        text(StatusCode::OK, format!("{}\n", level.current()))
    }

    fn set_level_for(
        &self,
        level: &LogLevel,
        directive: &str,
        seconds: u64,
    ) -> Result<(), LoggingError> {
        let temporary = level.set_temporarily(directive)?;
        let level = level.clone();
        let reverting = tokio::spawn(async move {
            time::sleep(Duration::from_secs(seconds)).await;
            if level.revert(temporary) {
                info!(now = %level.current(), "log level is back");
            }
        });
        // One at a time: the older one would find its level replaced anyway.
        let older = self.reverting.lock().replace(reverting.abort_handle());
        if let Some(older) = older {
            older.abort();
        }
        Ok(())
    }
}

/// The whole body; up to [`DISCARD_MAX_BYTES`] are read to be able to refuse it politely.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    if body.size_hint().lower() > DISCARD_MAX_BYTES {
        return Err(BodyError::TooLarge);
    }
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        // What is left of a directive that was cut short may be a valid one with another meaning.
        let frame = frame.map_err(|_| BodyError::Cut)?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        seen += bytes.len() as u64;
        if seen > DISCARD_MAX_BYTES {
            return Err(BodyError::TooLarge);
        }
        if seen <= BODY_MAX_BYTES as u64 {
            whole.extend_from_slice(bytes);
        }
    }
    if seen > BODY_MAX_BYTES as u64 {
        return Err(BodyError::TooLarge);
    }
    Ok(whole)
}

fn page(status: StatusCode, page: Page) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(page.body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    answer
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    page(status, Page::text(body))
}

fn bad(what: impl Into<String>) -> Answer {
    let mut what = what.into();
    what.push('\n');
    text(StatusCode::BAD_REQUEST, what)
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this page takes {allowed}\n"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
