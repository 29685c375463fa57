//! One DNS label, and the names that consist of one or two of them.

use std::fmt;
use std::sync::Arc;

use crate::name::NameError;
use crate::text::text_form;

/// Longest label in bytes (RFC 1035 §2.3.4).
pub const LABEL_MAX_BYTES: usize = 63;

/// An RFC 1123 label: 1 to 63 of `a-z`, `0-9`, `-`, with no '-' at either end and not beginning with `xn--`.
///
/// Shared, because names are copied into keys, plans and records far more often than they are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// Reads a label; ASCII upper case is folded to lower case.
    ///
    /// # Errors
    /// The rule of RFC 1123 §2.1 (or the refusal of `xn--`) that was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The label in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    Label,
    NameError,
    "a DNS label: up to 63 of a-z, 0-9 and '-'"
);

/// Whether `text` is a label, in either case.
pub(super) fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::LabelEmpty);
    }
    if text.len() > LABEL_MAX_BYTES {
        return Err(NameError::LabelTooLong { bytes: text.len() });
    }
    if let Some(found) = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
    {
        return Err(NameError::Character { found });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    // The text is ASCII by now, so that the prefix ends on a character boundary.
    if text
        .get(..4)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
    {
        return Err(NameError::Masked);
    }
    Ok(())
}

macro_rules! label_name {
    ($(#[$doc:meta])* $type:ident, $schema:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Label);

        impl $type {
            /// Reads the name by the rules of [`Label::parse`].
            ///
            /// # Errors
            /// The rule that was broken.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                Label::parse(text).map(Self)
            }

            /// The name in lower case.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The name as a plain label.
            #[must_use]
            pub fn label(&self) -> &Label {
                &self.0
            }
        }

        impl From<Label> for $type {
            fn from(label: Label) -> Self {
                Self(label)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        text_form!($type, NameError, $schema);
    };
}

label_name!(
    /// Name of one cluster, unique in its clusterset.
    ClusterName,
    "name of a cluster: a DNS label"
);
label_name!(
    /// Name of a namespace; the same name means the same namespace in every cluster of a clusterset.
    Namespace,
    "name of a namespace: a DNS label"
);
label_name!(
    /// Name of a service within its namespace.
    ServiceName,
    "name of a service within its namespace: a DNS label"
);

/// A service of a clusterset, written `payments.shop`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Name within the namespace.
    pub service: ServiceName,
    /// Namespace it lives in.
    pub namespace: Namespace,
}

impl ServiceId {
    /// Reads `<service>.<namespace>`.
    ///
    /// # Errors
    /// [`NameError::NotAService`] unless there are exactly two labels, else the rule one of them broke.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let (service, namespace) = text.split_once('.').ok_or(NameError::NotAService)?;
        if namespace.contains('.') {
            return Err(NameError::NotAService);
        }
        Ok(Self {
            service: ServiceName::parse(service)?,
            namespace: Namespace::parse(namespace)?,
        })
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.namespace)
    }
}

text_form!(ServiceId, NameError, "a service: <service>.<namespace>");
