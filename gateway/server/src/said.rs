//! What a client says before its stream is accepted, kept so that another candidate can hear it too.

/// What the client said before its stream was accepted.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Its bytes, from the first.
    pub(crate) bytes: Vec<u8>,
    /// It said that no more come.
    pub(crate) ended: bool,
    /// How many of the bytes the present attempt has queued.
    pub(crate) queued: usize,
    pub(crate) end_is_queued: bool,
}

impl Said {
    /// The client has said this much.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// What the accepted stream has not been given yet; the rest is kept no longer.
    pub(crate) fn into_rest(mut self) -> Rest {
        Rest {
            bytes: self.bytes.split_off(self.queued).into_boxed_slice(),
            ended: self.ended,
            end_is_queued: self.end_is_queued,
        }
    }

    /// A new attempt begins from the first byte.
    pub(crate) fn rewind(&mut self) {
        self.queued = 0;
        self.end_is_queued = false;
    }
}

/// What is to be sent before anything more is read.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) bytes: Box<[u8]>,
    /// Nothing more will be read.
    pub(crate) ended: bool,
    pub(crate) end_is_queued: bool,
}
