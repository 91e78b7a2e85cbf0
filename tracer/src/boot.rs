//! Boot files in a recording: their content in pieces by digest, and their names.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Bytes of a boot file in one piece. Each piece is a chunk, so that a long file is never in one
/// allocation, and a damaged chunk is found at its place.
pub(crate) const PIECE_LEN: usize = 1 << 20;
/// Length of a piece's own header: digest and offset.
const PIECE_HEADER: usize = 40;
/// The longest content that a reader puts together.
pub const CONTENT_LIMIT: u64 = 8 << 30;

/// A name for some content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootFileRow {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) len: u64,
}

/// The body of a piece: digest of the whole content, offset of the piece in it, the bytes.
pub(crate) fn encode_piece(digest: Digest, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(PIECE_HEADER + bytes.len());
    body.extend_from_slice(&digest.0);
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(bytes);
    body
}

/// Digest, offset and bytes of a piece.
pub(crate) fn decode_piece(body: &[u8]) -> Option<(Digest, u64, &[u8])> {
    let (digest, rest) = body.split_first_chunk::<32>()?;
    let (offset, bytes) = rest.split_first_chunk::<8>()?;
    Some((Digest(*digest), u64::from_le_bytes(*offset), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_reads_back() {
        let digest = Digest::of(b"whole");
        let body = encode_piece(digest, 1 << 33, b"bytes");
        assert_eq!(decode_piece(&body), Some((digest, 1 << 33, &b"bytes"[..])));
        assert_eq!(decode_piece(&body[..39]), None);
    }
}
