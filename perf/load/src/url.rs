//! The part of URLs that is needed to ask an HTTP server.

use crate::error::Error;

/// Where to ask for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Host and port as written, for the `Host` field and for connecting.
    pub authority: String,
    /// What to ask for.
    pub path: String,
}

impl Url {
    /// An URL, or host and port of our own server, which is asked for `bytes`.
    pub fn parse(target: &str, bytes: u64) -> Result<Self, Error> {
        let fault = |reason: &str| Error::Target {
            target: target.to_owned(),
            reason: reason.to_owned(),
        };
        let Some((scheme, rest)) = target.split_once("://") else {
            return Ok(Self {
                authority: target.to_owned(),
                path: format!("/bytes/{bytes}"),
            });
        };
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(fault("only http:// can be asked"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let is_plain = |character: char| character.is_ascii_graphic();
        if authority.is_empty() || authority.contains('@') || !rest.chars().all(is_plain) {
            return Err(fault("it is http://HOST[:PORT][/PATH]"));
        }
        Ok(Self {
            authority: authority.to_owned(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str) -> Option<(String, String)> {
        let url = Url::parse(target, 7).ok()?;
        Some((url.authority, url.path))
    }

    #[test]
    fn an_url_is_cut_where_its_parts_meet() {
        for (target, authority, path) in [
            ("http://a", "a", "/"),
            ("HTTP://a:80/b/c?d=e#f", "a:80", "/b/c?d=e"),
            ("http://[::1]:8?x", "[::1]:8", "/?x"),
            ("host:5301", "host:5301", "/bytes/7"),
        ] {
            assert_eq!(
                parts(target),
                Some((authority.to_owned(), path.to_owned())),
                "{target}"
            );
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for target in [
            "https://a/",
            "http:///x",
            "http://u:p@a/",
            "http://a/x y",
            "http://a/x\r\nEvil: 1",
        ] {
            assert_eq!(parts(target), None, "{target}");
        }
    }
}
