//! How two clusters become linked: the token, and the one message each way.
//!
//! A [`Party`] travels as bytes inside [`Join`] and [`Answer`], because the MAC beside it covers exactly these bytes. It
//! is read ([`Party::decode`]) once the MAC is known to be good. What is read here has the right form and size; whether
//! the roots are certificates is for whoever makes a bundle of them.

use std::fmt;

use corinth_model::{ClusterName, Condition, TrustDomain};
use data_encoding::BASE64URL_NOPAD;
use prost::Message;

use crate::host_port::HostPort;
use crate::wire::link as wire;

#[cfg(test)]
mod tests;

/// The most bytes a message takes, without the length in front.
pub const LINK_MESSAGE_MAX_BYTES: usize = 4096;

/// The most bytes a token takes as text.
pub const TOKEN_TEXT_MAX_BYTES: usize = 2048;

/// The most addresses a token or party names.
pub const LINK_ADDRESSES_MAX: usize = 16;

/// The most roots a party has, or pins a token.
pub const LINK_ROOTS_MAX: usize = 32;

/// What every token begins with, whatever its version.
const TOKEN_FAMILY: &str = "corinth-";

/// What a token of this version begins with.
const TOKEN_PREFIX: &str = "corinth-1.";

/// Names a token; not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

/// What a token proves; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub [u8; 32]);

/// SHA-256 of a root's subject public key info.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPin(pub [u8; 32]);

/// HMAC-SHA-256 that proves a secret on one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkMac(pub [u8; 32]);

/// One line that lets another cluster link itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// Its secret.
    pub secret: TokenSecret,
    /// The inviter.
    pub cluster: ClusterName,
    /// The inviter's trust domain.
    pub trust_domain: TrustDomain,
    /// Where the inviter's gateways take links; at least one, at most [`LINK_ADDRESSES_MAX`].
    pub addresses: Vec<HostPort>,
    /// The inviter's roots; at least one, at most [`LINK_ROOTS_MAX`].
    pub root_pins: Vec<RootPin>,
    /// When it expires, Unix seconds by the inviter's clock, which decides.
    pub expires_at: u64,
}

/// One of the two that become linked, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its roots, DER; at least one, at most [`LINK_ROOTS_MAX`].
    pub roots: Vec<Vec<u8>>,
    /// The sequence of its roots.
    pub bundle_sequence: u64,
    /// Where its gateways are dialled; empty if they cannot be, at most [`LINK_ADDRESSES_MAX`].
    pub addresses: Vec<HostPort>,
}

/// What the joiner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which token it has.
    pub token_id: TokenId,
    /// The encoding of a [`Party`].
    pub party: Vec<u8>,
    /// Proves the token's secret.
    pub mac: LinkMac,
    /// The joiner uses the inviter's services, and not the other way round.
    pub one_way: bool,
}

/// What the inviter says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The two are linked.
    Linked {
        /// The encoding of a [`Party`].
        party: Vec<u8>,
        /// Proves the token's secret.
        mac: LinkMac,
    },
    /// They are not.
    Refused(Condition),
}

/// Why a text is not a token that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More bytes than [`TOKEN_TEXT_MAX_BYTES`].
    #[error("the token has {bytes} bytes; at most {TOKEN_TEXT_MAX_BYTES} are allowed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Something else.
    #[error("this is not a token; a token is one line that begins with `{TOKEN_PREFIX}`")]
    NotAToken,
    /// Of another version.
    #[error("the token is of another version; upgrade the older of the two clusters")]
    OtherVersion,
    /// Cut, or changed on its way.
    #[error("the token is damaged; copy the whole line again")]
    Damaged,
    /// Well formed, but a part of it cannot be used.
    #[error("the token's {field} cannot be used; ask for a new token")]
    InvalidField {
        /// The field's name in the protocol file.
        field: &'static str,
    },
}

/// Why bytes are not a message of linking.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// More bytes than [`LINK_MESSAGE_MAX_BYTES`].
    #[error("the message has {bytes} bytes; at most {LINK_MESSAGE_MAX_BYTES} are allowed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Truncated, followed by something else, or not protobuf at all.
    #[error("the message is not well formed")]
    Malformed(#[source] prost::DecodeError),
    /// A field whose content breaks its rule.
    #[error("the field {field} in the message is not valid")]
    InvalidField {
        /// The field's name in the protocol file.
        field: &'static str,
    },
    /// An answer that is neither yes nor no.
    #[error("the answer holds no outcome")]
    NoOutcome,
    /// A refusal with a code that this version does not know.
    #[error("the answer refuses with a code that is unknown here; is the inviter newer?")]
    UnknownCode,
}

impl Token {
    /// The one line to hand over. Secret.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] if names and addresses make it so.
    pub fn to_text(&self) -> Result<String, TokenError> {
        let message = wire::Token {
            id: self.id.0.to_vec(),
            secret: self.secret.0.to_vec(),
            cluster: self.cluster.to_string(),
            trust_domain: self.trust_domain.to_string(),
            addresses: self.addresses.iter().map(HostPort::to_string).collect(),
            root_pins: self.root_pins.iter().map(|pin| pin.0.to_vec()).collect(),
            expires_at: self.expires_at,
        };
        let encoded = BASE64URL_NOPAD.encode(&message.encode_to_vec());
        let text = format!("{TOKEN_PREFIX}{encoded}");
        if text.len() > TOKEN_TEXT_MAX_BYTES {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        Ok(text)
    }

    /// Reads the line; blanks around it mean nothing.
    ///
    /// # Errors
    /// Why it cannot be used. Nothing of the text is repeated, because it is secret.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if text.len() > TOKEN_TEXT_MAX_BYTES {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        let Some(encoded) = text.strip_prefix(TOKEN_PREFIX) else {
            return Err(if is_of_other_version(text) {
                TokenError::OtherVersion
            } else {
                TokenError::NotAToken
            });
        };
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes());
        let bytes = bytes.map_err(|_| TokenError::Damaged)?;
        let message = wire::Token::decode(&bytes[..]).map_err(|_| TokenError::Damaged)?;
        Self::try_from(message).map_err(|field| TokenError::InvalidField { field })
    }
}

/// `corinth-`, a number and a dot, but not ours.
fn is_of_other_version(text: &str) -> bool {
    let version = text
        .strip_prefix(TOKEN_FAMILY)
        .and_then(|rest| rest.split_once('.'));
    version.is_some_and(|(number, _)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl TryFrom<wire::Token> for Token {
    type Error = &'static str;

    fn try_from(token: wire::Token) -> Result<Self, &'static str> {
        let addresses = addresses(&token.addresses)?;
        if addresses.is_empty() {
            return Err("addresses");
        }
        let pins = token.root_pins.iter().map(|pin| exactly("root_pins", pin));
        let root_pins: Vec<_> = pins.map(|pin| pin.map(RootPin)).collect::<Result<_, _>>()?;
        if root_pins.is_empty() || root_pins.len() > LINK_ROOTS_MAX {
            return Err("root_pins");
        }
        if token.expires_at == 0 {
            return Err("expires_at");
        }
        Ok(Self {
            id: TokenId(exactly("id", &token.id)?),
            secret: TokenSecret(exactly("secret", &token.secret)?),
            cluster: cluster(&token.cluster)?,
            trust_domain: trust_domain(&token.trust_domain)?,
            addresses,
            root_pins,
            expires_at: token.expires_at,
        })
    }
}

impl Party {
    /// The bytes that travel, and that a MAC covers.
    ///
    /// # Errors
    /// [`LinkError::TooLong`] if roots and addresses leave no room for the rest of a message.
    pub fn encode(&self) -> Result<Vec<u8>, LinkError> {
        /// What a message holds beside the party: token id, MAC, flag and the headers of four fields.
        const BESIDE_MAX_BYTES: usize = 64 + 32;

        let message = wire::Party {
            cluster: self.cluster.to_string(),
            trust_domain: self.trust_domain.to_string(),
            roots: self.roots.clone(),
            bundle_sequence: self.bundle_sequence,
            addresses: self.addresses.iter().map(HostPort::to_string).collect(),
        };
        let bytes = message.encode_to_vec();
        if bytes.len() > LINK_MESSAGE_MAX_BYTES - BESIDE_MAX_BYTES {
            return Err(LinkError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads what the other side says of itself. Fields of later versions are skipped.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        let party: wire::Party = read(bytes)?;
        let has_roots = (1..=LINK_ROOTS_MAX).contains(&party.roots.len());
        if !has_roots || party.roots.iter().any(Vec::is_empty) {
            return Err(invalid("roots"));
        }
        Ok(Self {
            cluster: cluster(&party.cluster).map_err(invalid)?,
            trust_domain: trust_domain(&party.trust_domain).map_err(invalid)?,
            roots: party.roots,
            bundle_sequence: party.bundle_sequence,
            addresses: addresses(&party.addresses).map_err(invalid)?,
        })
    }
}

impl Join {
    /// The wire form, at most [`LINK_MESSAGE_MAX_BYTES`] long for a party that [`Party::encode`] made.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Join {
            token_id: self.token_id.0.to_vec(),
            party: self.party.clone(),
            mac: self.mac.0.to_vec(),
            one_way: self.one_way,
        };
        message.encode_to_vec()
    }

    /// Reads the wire form, which must fill `bytes` exactly. The party in it is not looked at.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        let join: wire::Join = read(bytes)?;
        Ok(Self {
            token_id: TokenId(exactly("token_id", &join.token_id).map_err(invalid)?),
            party: join.party,
            mac: LinkMac(exactly("mac", &join.mac).map_err(invalid)?),
            one_way: join.one_way,
        })
    }
}

impl Answer {
    /// The wire form, at most [`LINK_MESSAGE_MAX_BYTES`] long for a party that [`Party::encode`] made.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let outcome = match self {
            Self::Linked { party, mac } => wire::answer::Outcome::Linked(wire::Linked {
                party: party.clone(),
                mac: mac.0.to_vec(),
            }),
            Self::Refused(condition) => wire::answer::Outcome::Refused(wire::Refused {
                code: condition.code().to_owned(),
            }),
        };
        let message = wire::Answer {
            outcome: Some(outcome),
        };
        message.encode_to_vec()
    }

    /// Reads the wire form, which must fill `bytes` exactly. The party in it is not looked at.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        let answer: wire::Answer = read(bytes)?;
        match answer.outcome.ok_or(LinkError::NoOutcome)? {
            wire::answer::Outcome::Linked(linked) => Ok(Self::Linked {
                party: linked.party,
                mac: LinkMac(exactly("mac", &linked.mac).map_err(invalid)?),
            }),
            wire::answer::Outcome::Refused(refused) => Condition::from_code(&refused.code)
                .map(Self::Refused)
                .ok_or(LinkError::UnknownCode),
        }
    }
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, LinkError> {
    if bytes.len() > LINK_MESSAGE_MAX_BYTES {
        return Err(LinkError::TooLong { bytes: bytes.len() });
    }
    M::decode(bytes).map_err(LinkError::Malformed)
}

const fn invalid(field: &'static str) -> LinkError {
    LinkError::InvalidField { field }
}

fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], &'static str> {
    bytes.try_into().map_err(|_| field)
}

/// One name has one spelling on the wire.
fn cluster(text: &str) -> Result<ClusterName, &'static str> {
    ClusterName::parse(text)
        .ok()
        .filter(|name| name.as_str() == text)
        .ok_or("cluster")
}

fn trust_domain(text: &str) -> Result<TrustDomain, &'static str> {
    TrustDomain::parse(text).map_err(|_| "trust_domain")
}

fn addresses(texts: &[String]) -> Result<Vec<HostPort>, &'static str> {
    if texts.len() > LINK_ADDRESSES_MAX {
        return Err("addresses");
    }
    let read = texts.iter().map(|text| HostPort::parse(text));
    read.collect::<Result<_, _>>().map_err(|_| "addresses")
}

/// In hexadecimal, as lists and logs show it.
impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// In hexadecimal.
impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Leaves the secret out.
impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// Leaves the value out.
impl fmt::Debug for LinkMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkMac(..)")
    }
}
