//! Text out of tokens as they come, such that the pieces joined are what decoding all tokens at once gives.
//!
//! A decoder sees a window of the last tokens, never all of them: the window begins with tokens whose text is already
//! out (so that what a decoder does to the first token of a text, or to the first space, happens to these), and the
//! text beyond theirs is new. What a later token could still change is held back.

use std::sync::Arc;

use tokenizers::DecoderWrapper;

use crate::tokenizer::Tokenizer;
use crate::Result;

/// The window is cut when it is this long: long enough to cut seldom, short enough to decode at every token.
const WINDOW_TOKENS: usize = 16;
const REPLACEMENT: char = '\u{FFFD}';

pub struct Stream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// A run of byte tokens (<0xE4>) is text as a whole or not at all, so it waits for its end.
    byte_tokens: bool,
    window: Vec<String>,
    /// Bytes of the window's text that are out.
    shown: usize,
    /// Where the window may be cut: all text of the tokens before was out, and complete, at some time.
    seam: usize,
}

/// The byte that <0xHH> stands for, read as the crate's ByteFallback does.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

impl Stream {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let byte_tokens =
            tokenizer.decoder_steps().iter().any(|step| matches!(step, DecoderWrapper::ByteFallback(_)));
        Self { tokenizer, skip_special, byte_tokens, window: Vec::new(), shown: 0, seam: 0 }
    }

    /// The window's tokens without the byte tokens at its end.
    fn settled_tokens(&self) -> usize {
        if !self.byte_tokens {
            return self.window.len();
        }
        self.window.iter().rposition(|token| byte_of(token).is_none()).map_or(0, |last| last + 1)
    }

    fn text(&self, begin: usize, end: usize) -> Result<String> {
        self.tokenizer.join(self.window[begin..end].to_vec())
    }

    pub fn push(&mut self, ids: &[u32]) -> Result<String> {
        let mut out = String::new();
        for id in ids {
            if let Some(token) = self.tokenizer.shown_token(*id, self.skip_special) {
                self.window.push(token);
                out.push_str(&self.advance()?);
            }
        }
        Ok(out)
    }

    fn advance(&mut self) -> Result<String> {
        let settled = self.settled_tokens();
        if settled < self.window.len() {
            return Ok(String::new());
        }
        let text = self.text(0, settled)?;
        // Bytes at the end that do not make a character yet come as one U+FFFD.
        let stable = text.strip_suffix(REPLACEMENT).unwrap_or(&text).len();
        let new = text.get(self.shown..stable).unwrap_or_default().to_string();
        self.shown = self.shown.max(stable);
        if stable == text.len() {
            self.cut(settled, 0)?;
        } else if settled > WINDOW_TOKENS {
            // Text may end in U+FFFD for ever, where a model writes bytes that make no character.
            let before = self.text(0, settled - 1)?.len();
            if before <= stable {
                self.cut(settled - 1, stable - before)?;
            }
        }
        Ok(new)
    }

    /// Everything up to `end` is out and complete, and `more` bytes beyond are out. Cuts a long window at the seam before,
    /// unless what stays has no text: then it would not stand for a beginning.
    fn cut(&mut self, end: usize, more: usize) -> Result<()> {
        if end >= WINDOW_TOKENS && self.seam > 0 {
            let kept = self.text(self.seam, end)?;
            if !kept.is_empty() {
                self.window.drain(..self.seam);
                self.shown = kept.len() + more;
                self.seam = end - self.seam;
                return Ok(());
            }
        }
        if end < WINDOW_TOKENS || self.seam == 0 {
            self.seam = end;
        }
        Ok(())
    }

    /// What was held back, an unfinished character at the end left out: it is none.
    pub fn flush(&mut self) -> Result<String> {
        let mut end = self.window.len();
        let settled = self.settled_tokens();
        let run: Vec<u8> = self.window[settled..].iter().filter_map(|token| byte_of(token)).collect();
        if let Err(error) = std::str::from_utf8(&run) {
            if error.error_len().is_none() {
                end = settled + error.valid_up_to();
            }
        }
        let text = self.text(0, end)?;
        let whole = if end == settled && self.ends_unfinished() {
            text.strip_suffix(REPLACEMENT).unwrap_or(&text)
        } else {
            &text
        };
        let out = whole.get(self.shown..).unwrap_or_default().to_string();
        self.window.clear();
        (self.shown, self.seam) = (0, 0);
        Ok(out)
    }

    /// Whether the last bytes are the beginning of a character, rather than U+FFFD itself or bytes that never make one:
    /// byte-level tokens only.
    fn ends_unfinished(&self) -> bool {
        let is_level = |step: &&DecoderWrapper| matches!(step, DecoderWrapper::ByteLevel(_));
        if !self.tokenizer.decoder_steps().iter().any(is_level) {
            return false;
        }
        let bytes: Vec<u8> = self.window.iter().flat_map(|token| level_bytes(token)).collect();
        // From the end back to the first byte of the last character.
        let start = (1..=bytes.len().min(4)).map(|back| bytes.len() - back).find(|at| bytes[*at] & 0xC0 != 0x80);
        start.is_some_and(|at| matches!(std::str::from_utf8(&bytes[at..]), Err(error) if error.error_len().is_none()))
    }
}

/// The bytes of a byte-level token. GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes, in order,
/// for the characters from U+0100 on (Radford et al. 2019, encoder.py, bytes_to_unicode). A token with any other character
/// is text.
fn level_bytes(token: &str) -> Vec<u8> {
    let byte = |c: char| -> Option<u8> {
        match c as u32 {
            code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
            code @ 0x100..=0x120 => Some((code - 0x100) as u8),
            code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
            0x143 => Some(0xAD),
            _ => None,
        }
    };
    token.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}
