//! Reading an input piece by piece.

/// The rest of an input. Behind its end there is nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// A byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number of 16 bits.
    pub(super) fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// An index below `len`.
    pub(super) fn index(&mut self, len: usize) -> Option<usize> {
        usize::from(self.byte()?).checked_rem(len)
    }

    /// As many bytes as the next one says, or as there are.
    pub(super) fn piece(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.byte()?).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(piece)
    }
}
