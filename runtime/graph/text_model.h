// What the exporter says of a language model beyond its graph (extra/echelon.json in the archive),
// and what its graph says of attention.
#ifndef ECHELON_RUNTIME_GRAPH_TEXT_MODEL_H_
#define ECHELON_RUNTIME_GRAPH_TEXT_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/json_reader.h"
#include "runtime/graph/recipe.h"
#include "runtime/tensor/dtype.h"

namespace echelon::graph {

// The graph of a language model takes packed tokens and gives the logits of the rows asked for.
inline constexpr char kTokens[] = "input_ids";        // i64 [1, T]
inline constexpr char kPositions[] = "position_ids";  // i64 [1, T]
inline constexpr char kRows[] = "rows";               // i64 [R], indices of tokens
inline constexpr char kAttention[] = "torch.ops.echelon.attention.default";

struct TextModel {
  std::string architecture;   // "LlamaForCausalLM"
  std::string config_sha256;  // of the config.json it was made from
  DType dtype = DType::kF32;  // of weights, activations and KV
  int64_t max_model_len = 0;  // tokens of a sequence, prompt and answer
  int64_t vocab_size = 0;
  std::vector<int64_t> eos_token_ids;
  int64_t bos_token_id = -1;  // -1: none
  bool has_weights = true;    // the export saw the checkpoint; otherwise the graph is for planning
  std::map<std::string, Recipe> recipes;  // by the parameter's name
};

absl::StatusOr<TextModel> ReadTextModel(const Json& json, const std::string& where);

class Digest;
void AddTextModel(const TextModel& model, Digest* digest);

struct Graph;
// Of one token in one attention layer: keys [kv_heads, key_dim], values [kv_heads, value_dim].
struct AttentionLayer {
  int node = 0;       // index in the graph
  int64_t layer = 0;  // the operator's own number
  int64_t kv_heads = 0, key_dim = 0, value_dim = 0;
};
// Those of nodes [begin, end).
std::vector<AttentionLayer> AttentionLayers(const Graph& graph, int begin, int end);

}  // namespace echelon::graph

#endif  // ECHELON_RUNTIME_GRAPH_TEXT_MODEL_H_
