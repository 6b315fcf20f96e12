// The C ABI of the crate beside it: tokenizers and chat templates, nothing else. Only runtime/text/
// includes this. No call unwinds or aborts on bad input: a panic inside comes back as
// ECHELON_TEXT_INTERNAL. Text is UTF-8 with a length, never NUL-terminated; what is not UTF-8
// is read with U+FFFD in its place.
#ifndef ECHELON_RUNTIME_TEXT_CAPI_CAPI_H_
#define ECHELON_RUNTIME_TEXT_CAPI_CAPI_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct EchelonTokenizer EchelonTokenizer;  // immutable: any number of threads may use one
typedef struct EchelonDecodeStream
    EchelonDecodeStream;                         // one thread at a time; keeps its tokenizer
typedef struct EchelonTemplate EchelonTemplate;  // immutable, as a tokenizer

typedef enum EchelonTextCode {
  ECHELON_TEXT_OK = 0,
  ECHELON_TEXT_INVALID = 1,   // the input is at fault
  ECHELON_TEXT_LIMIT = 2,     // a bound of size, depth or steps was hit
  ECHELON_TEXT_INTERNAL = 3,  // the library is at fault
} EchelonTextCode;

// Owned by the caller, freed by echelon_text_string_free. A callee sets it before it returns: to
// its result, or to a message of one line when the code is not OK.
typedef struct EchelonTextString {
  char* data;
  size_t size;
  size_t capacity;
} EchelonTextString;
void echelon_text_string_free(EchelonTextString string);

typedef struct EchelonTextIds {
  uint32_t* data;
  size_t size;
  size_t capacity;
} EchelonTextIds;
void echelon_text_ids_free(EchelonTextIds ids);

// json: tokenizer.json. added: a JSON list of AddedTokens (content, single_word, lstrip, rstrip,
// normalized, special; and only_if_missing) that are added in this order, or given these flags
// where they are there already, unless only_if_missing. On failure null, and *error says why.
EchelonTokenizer* echelon_tokenizer_new(const char* json, size_t json_size, const char* added,
                                        size_t added_size, EchelonTextString* error);
void echelon_tokenizer_free(EchelonTokenizer* tokenizer);

// add_special: what the post-processor adds (bos and the like). parse_special: special tokens that
// stand in the text become their ids; otherwise they are text.
EchelonTextCode echelon_tokenizer_encode(const EchelonTokenizer* tokenizer, const char* text,
                                         size_t size, bool add_special, bool parse_special,
                                         EchelonTextIds* ids, EchelonTextString* error);
EchelonTextCode echelon_tokenizer_decode(const EchelonTokenizer* tokenizer, const uint32_t* ids,
                                         size_t size, bool skip_special,
                                         EchelonTextString* text_or_error);
int64_t echelon_tokenizer_token_to_id(const EchelonTokenizer* tokenizer, const char* token,
                                      size_t size);  // -1: no such token
bool echelon_tokenizer_id_to_token(const EchelonTokenizer* tokenizer, uint32_t id,
                                   EchelonTextString* token);  // false: no such id, token is empty
size_t echelon_tokenizer_vocab_size(const EchelonTokenizer* tokenizer);  // added tokens included
// JSON: [{"id": 2, "content": "</s>", "special": true}, ...] by id.
EchelonTextCode echelon_tokenizer_added_tokens(const EchelonTokenizer* tokenizer,
                                               EchelonTextString* json_or_error);

EchelonDecodeStream* echelon_decode_stream_new(const EchelonTokenizer* tokenizer,
                                               bool skip_special);
void echelon_decode_stream_free(EchelonDecodeStream* stream);
// Gives the text that these ids complete; it never changes later.
EchelonTextCode echelon_decode_stream_push(EchelonDecodeStream* stream, const uint32_t* ids,
                                           size_t size, EchelonTextString* text_or_error);
// Gives what was held back, but no unfinished character. Nothing may be pushed afterwards.
EchelonTextCode echelon_decode_stream_flush(EchelonDecodeStream* stream,
                                            EchelonTextString* text_or_error);

EchelonTemplate* echelon_template_new(const char* source, size_t size, EchelonTextString* error);
void echelon_template_free(EchelonTemplate* chat_template);
typedef struct EchelonTemplateLimits {
  uint64_t max_steps;         // instructions of the template engine
  uint64_t max_output_bytes;  // of the rendered text
} EchelonTemplateLimits;
// A variable of the template and its value as JSON. With an empty name the value is an object, and
// each of its members a variable. A later one of the same name wins.
typedef struct EchelonTemplateVariable {
  const char* name;
  size_t name_size;
  const char* json;
  size_t json_size;
} EchelonTemplateVariable;
// now_s: what strftime_now formats, in seconds since 1970, local time.
EchelonTextCode echelon_template_render(const EchelonTemplate* chat_template,
                                        const EchelonTemplateVariable* variables, size_t count,
                                        EchelonTemplateLimits limits, int64_t now_s,
                                        EchelonTextString* text_or_error);

#ifdef __cplusplus
}
#endif

#endif  // ECHELON_RUNTIME_TEXT_CAPI_CAPI_H_
