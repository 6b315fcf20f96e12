// From a row of logits to a token. Pure, and the same on every machine for the same logits: no
// libm function has a say in what is drawn.
//
// In this order:
//   1. bias is added;
//   2. repetition_penalty r, over all tokens seen: logit / r where positive, logit * r where
//      negative (HF transformers' RepetitionPenaltyLogitsProcessor);
//   3. presence and frequency penalties, over generated tokens only (OpenAI's API):
//      logit - presence - frequency * times;
//      (1 to 3 leave a logit within f32's finite numbers, unless it is banned;)
//   4. temperature 0: the greatest logit, the lowest id among equals. Else logits / temperature,
//      and what is kept is cut down, each time from what the cut before left (HF's order):
//   5. top_k: the k greatest, of equal ones those of lowest id;
//   6. top_p: the fewest, greatest first, whose probabilities (renormalised after top_k) sum to at
//      least p; one at least;
//   7. min_p: those at least min_p times as probable as the greatest;
//   8. one uniform number, Philox4x32-10 with key `seed` and counter (position, choice), picks from
//      what is left by the inverse of the distribution function, greatest first, by id among
//      equals (by id alone where nothing was cut).
// Log probabilities are of the model's own distribution: before bias, penalties, temperature and
// cuts (vLLM's default, raw_logprobs).
#ifndef ECHELON_RUNTIME_SAMPLING_SAMPLING_H_
#define ECHELON_RUNTIME_SAMPLING_SAMPLING_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/step/step.h"

namespace echelon::sampling {

// logits: one f32 a token of the vocabulary; -infinity means never. `sample` has passed
// step::Check. kInvalidArgument names a token that is outside the vocabulary; kInternal: a
// logit is NaN or +infinity (names its token), or none is left that can be drawn.
absl::StatusOr<step::Drawn> Draw(absl::Span<const float> logits, const step::Sample& sample);

}  // namespace echelon::sampling

#endif  // ECHELON_RUNTIME_SAMPLING_SAMPLING_H_
