//! The form of netlink messages.

const HEADER_BYTES: usize = 16;
const REQUEST: u16 = 1;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const NESTED: u16 = 1 << 15;

/// Without the bits that say nested or byte order.
const KIND_MASK: u16 = 0x3fff;

const ALIGNMENT: usize = 4;

/// A question on its way.
pub(super) struct Question(Vec<u8>);

impl Question {
    pub(super) fn new(kind: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
        Self(bytes)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn put_attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
        self.put(&length.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        let whole = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(whole, 0);
    }

    /// An attribute that holds one other.
    pub(super) fn put_nested(&mut self, outer: u16, inner: u16, value: &[u8]) {
        let mut nested = Self(Vec::new());
        nested.put_attribute(inner, value);
        self.put_attribute(outer | NESTED, &nested.0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// Attributes one after the other: kind and value. Ends where they make no sense.
#[derive(Clone)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first of this kind.
    pub(super) fn value_of(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND_MASK;
        let value = self.0.get(ATTRIBUTE_HEADER_BYTES..length)?;
        self.0 = self
            .0
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((kind, value))
    }
}

/// A number at a place, if the bytes reach that far.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

/// A number at a place, if the bytes reach that far.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_out_as_they_went_in() {
        let mut question = Question::new(7);
        question.put_attribute(1, b"abc");
        question.put_nested(2, 3, &9_u32.to_ne_bytes());
        let bytes = question.finish();
        assert_eq!(u32_at(&bytes, 0), Some(bytes.len() as u32));
        let attributes = Attributes::new(&bytes[HEADER_BYTES..]);
        assert_eq!(attributes.value_of(1), Some(b"abc".as_slice()));
        let inner = Attributes::new(attributes.value_of(2).unwrap())
            .value_of(3)
            .unwrap();
        assert_eq!(u32_at(inner, 0), Some(9));
        assert_eq!(attributes.value_of(4), None);
    }

    #[test]
    fn attributes_that_make_no_sense_end_the_list() {
        for bytes in [
            &[][..],
            &[1],
            &[3, 0, 1, 0],
            &[0, 0, 0, 0, 0],
            &[200, 0, 1, 0, 5],
        ] {
            assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
        }
    }
}
