//! Text of strangers, cut before it is repeated.

/// What an unknown peer says of itself, for the log: no more of it than this.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or(text)
}
