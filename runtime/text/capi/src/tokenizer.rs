//! One tokenizer.json with what a model's other files add to it.

use std::sync::OnceLock;

use tokenizers::{AddedToken, Decoder, DecoderWrapper};

use crate::{Fault, Result};

/// A token that a model's configuration adds.
#[derive(serde::Deserialize)]
struct Addition {
    only_if_missing: bool,
    #[serde(flatten)]
    token: AddedToken,
}

pub struct Tokenizer {
    plain: tokenizers::Tokenizer,
    /// A copy that reads special tokens in a text as text: the crate keeps that choice in the tokenizer. Made when
    /// it is first asked for, since few ask and a vocabulary takes tens of megabytes.
    literal: OnceLock<tokenizers::Tokenizer>,
}

fn fault(doing: &str) -> impl Fn(tokenizers::Error) -> Fault + '_ {
    move |error| Fault::Invalid(format!("{doing}: {error}"))
}

impl Tokenizer {
    pub fn new(json: &[u8], added: &[u8]) -> Result<Self> {
        let mut plain = tokenizers::Tokenizer::from_bytes(json).map_err(fault("not a tokenizer.json"))?;
        let added: Vec<Addition> = serde_json::from_slice(added)
            .map_err(|error| Fault::Invalid(format!("the added tokens in its configuration do not parse: {error}")))?;
        for addition in added {
            let there = plain.get_added_vocabulary().get_vocab().contains_key(&addition.token.content);
            if !(addition.only_if_missing && there) {
                plain.add_tokens([addition.token]).map_err(fault("the added tokens do not fit"))?;
            }
        }
        // A file may ask for padding or truncation; a prompt gets neither.
        plain.with_padding(None);
        plain.with_truncation(None).map_err(fault("truncation cannot be turned off"))?;
        plain.set_encode_special_tokens(false);
        Ok(Self { plain, literal: OnceLock::new() })
    }

    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let tokenizer = if parse_special {
            &self.plain
        } else {
            self.literal.get_or_init(|| {
                let mut copy = self.plain.clone();
                copy.set_encode_special_tokens(true);
                copy
            })
        };
        let encoding = tokenizer.encode_fast(text, add_special).map_err(fault("the text cannot be tokenized"))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.plain.decode(ids, skip_special).map_err(fault("the tokens cannot be decoded"))
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.plain.token_to_id(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.plain.id_to_token(id)
    }

    pub fn vocab_size(&self) -> usize {
        self.plain.get_vocab_size(true)
    }

    pub fn added_tokens(&self) -> String {
        let mut tokens: Vec<_> = self.plain.get_added_tokens_decoder().into_iter().collect();
        tokens.sort_by_key(|(id, _)| *id);
        let list: Vec<_> = tokens
            .iter()
            .map(|(id, t)| serde_json::json!({"id": id, "content": t.content, "special": t.special}))
            .collect();
        serde_json::Value::from(list).to_string()
    }

    /// The token as decode sees it: none for an id that is unknown, or special and to be skipped.
    pub fn shown_token(&self, id: u32, skip_special: bool) -> Option<String> {
        self.plain
            .id_to_token(id)
            .filter(|token| !skip_special || !self.plain.get_added_vocabulary().is_special_token(token))
    }

    /// decode, from tokens that `shown_token` gave.
    pub fn join(&self, tokens: Vec<String>) -> Result<String> {
        match self.plain.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(fault("the tokens cannot be decoded")),
            None => Ok(tokens.join(" ")),
        }
    }

    /// The decoder's steps, sequences laid flat.
    pub fn decoder_steps(&self) -> Vec<&DecoderWrapper> {
        fn flatten<'a>(decoder: &'a DecoderWrapper, into: &mut Vec<&'a DecoderWrapper>) {
            match decoder {
                DecoderWrapper::Sequence(sequence) => {
                    sequence.get_decoders().iter().for_each(|step| flatten(step, into));
                }
                step => into.push(step),
            }
        }
        let mut steps = Vec::new();
        if let Some(decoder) = self.plain.get_decoder() {
            flatten(decoder, &mut steps);
        }
        steps
    }
}
