#include "runtime/graph/text_model.h"

#include "absl/strings/str_cat.h"
#include "runtime/graph/byte_source.h"
#include "runtime/graph/digest.h"
#include "runtime/graph/graph.h"

namespace echelon::graph {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kMostTokens = int64_t{1} << 31;  // ids and positions fit 32 bits

const Argument* Named(const Node& node, const char* name) {
  for (const Argument& argument : node.arguments)
    if (argument.name == name && argument.items.size() == 1) return &argument;
  return nullptr;
}

// Sizes of a tensor argument [1, heads, tokens, dim]; empty when it is no such tensor.
std::vector<int64_t> SizesOf(const Graph& graph, const Node& node, const char* name) {
  const Argument* argument = Named(node, name);
  const ValueRef* ref = argument ? std::get_if<ValueRef>(&argument->items[0]) : nullptr;
  if (!ref || graph.values[ref->id].shape.size() != 4) return {};
  std::vector<int64_t> sizes;
  for (const Dim& dim : graph.values[ref->id].shape) sizes.push_back(dim.hint);
  return sizes;
}

}  // namespace

absl::StatusOr<TextModel> ReadTextModel(const Json& json, const std::string& where) {
  JsonReader reader(where);
  TextModel model;
  if (const int64_t format = reader.Int(json, "format"); reader.ok() && format != kFormat)
    reader.Fail(absl::StrCat("format ", format, " is not known; export the model again"));
  if (const std::string& kind = reader.String(json, "kind"); reader.ok() && kind != "text")
    reader.Fail(absl::StrCat("a model of kind '", kind, "' is not known"));
  model.architecture = reader.String(json, "architecture");
  model.config_sha256 = reader.String(json, "config_sha256");
  const std::string& dtype = reader.String(json, "dtype");
  if (reader.ok() && dtype != "bf16" && dtype != "f32")
    reader.Fail(absl::StrCat("dtype ", dtype, " is neither bf16 nor f32"));
  model.dtype = dtype == "bf16" ? DType::kBF16 : DType::kF32;
  model.max_model_len = reader.Int(json, "max_model_len");
  model.vocab_size = reader.Int(json, "vocab_size");
  for (const int64_t size : {model.max_model_len, model.vocab_size})
    if (reader.ok() && (size < 1 || size >= kMostTokens))
      reader.Fail(absl::StrCat("a size of ", size, " is out of range"));
  for (const Json& id : reader.Array(json, "eos_token_ids"))
    if (const int64_t token = reader.AsInt(id, "eos_token_ids");
        reader.ok() && token >= 0 && token < model.vocab_size)
      model.eos_token_ids.push_back(token);  // others can never be drawn
  if (const Json* bos = reader.Find(json, "bos_token_id"))
    model.bos_token_id = reader.AsInt(*bos, "bos_token_id");
  if (const Json* weights = reader.Find(json, "weights"))
    model.has_weights = reader.AsBool(*weights, "weights");
  const Json& parameters = reader.Object(json, "parameters");
  for (auto entry = parameters.begin(); entry != parameters.end() && reader.ok(); ++entry) {
    reader.set_subject(absl::StrCat("parameter ", Quoted(entry.key())));
    model.recipes.emplace(entry.key(), ReadRecipe(reader, entry.value()));
  }
  if (!reader.ok()) return reader.status();
  return model;
}

void AddTextModel(const TextModel& model, Digest* digest) {
  digest->Add(model.architecture);
  digest->Add(model.config_sha256);
  digest->Add(static_cast<int64_t>(model.dtype));
  digest->Add(model.max_model_len);
  digest->Add(model.vocab_size);
  for (const int64_t id : model.eos_token_ids) digest->Add(id);
  digest->Add(model.bos_token_id);
}

std::vector<AttentionLayer> AttentionLayers(const Graph& graph, int begin, int end) {
  std::vector<AttentionLayer> layers;
  for (int i = begin; i < end; ++i) {
    const Node& node = graph.nodes[i];
    if (node.target != kAttention) continue;
    const Argument* number = Named(node, "layer");
    const auto* layer = number ? std::get_if<int64_t>(&number->items[0]) : nullptr;
    const std::vector<int64_t> keys = SizesOf(graph, node, "k"), values = SizesOf(graph, node, "v");
    if (!layer || keys.empty() || values.empty()) continue;
    layers.push_back({.node = i,
                      .layer = *layer,
                      .kv_heads = keys[1],
                      .key_dim = keys[3],
                      .value_dim = values[3]});
  }
  return layers;
}

}  // namespace echelon::graph
