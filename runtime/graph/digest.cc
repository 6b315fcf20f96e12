#include "runtime/graph/digest.h"

#include <openssl/evp.h>

#include <bit>
#include <type_traits>

#include "absl/strings/escaping.h"

namespace echelon::graph {
namespace {

constexpr size_t kDigestBytes = 16;

void AddDims(const std::vector<Dim>& dims, Digest* digest) {
  digest->Add(static_cast<int64_t>(dims.size()));
  for (const Dim& dim : dims) {
    digest->Add(dim.hint);
    digest->Add(dim.expr);
  }
}

void AddNumbers(const std::vector<int64_t>& numbers, Digest* digest) {
  digest->Add(static_cast<int64_t>(numbers.size()));
  for (const int64_t number : numbers) digest->Add(number);
}

void AddItem(const Item& item, Digest* digest) {
  digest->Add(static_cast<int64_t>(item.index()));
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>)
          digest->Add(int64_t{value});
        else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>)
          digest->Add(value);
        else if constexpr (std::is_enum_v<T>)
          digest->Add(static_cast<int64_t>(value));
        else if constexpr (std::is_same_v<T, std::string>)
          digest->Add(std::string_view(value));
        else if constexpr (std::is_same_v<T, Device>)
          digest->Add(std::string_view(value.text));
        else if constexpr (std::is_same_v<T, ValueRef>)
          digest->Add(int64_t{value.id});
      },
      item);
}

void AddNode(const Node& node, Digest* digest) {
  for (const std::string* text : {&node.name, &node.target, &node.module}) digest->Add(*text);
  digest->Add(static_cast<int64_t>(node.arguments.size()));
  for (const Argument& argument : node.arguments) {
    digest->Add(argument.name);
    digest->Add(int64_t{argument.is_list});
    digest->Add(static_cast<int64_t>(argument.items.size()));
    for (const Item& item : argument.items) AddItem(item, digest);
  }
  digest->Add(static_cast<int64_t>(node.results.size()));
  for (const Result& result : node.results) {
    digest->Add(int64_t{result.is_list});
    AddNumbers({result.values.begin(), result.values.end()}, digest);
  }
}

void AddStored(const Stored& stored, Digest* digest) {
  digest->Add(int64_t{stored.kind});
  digest->Add(stored.name);
  // The record's folder is named after the file it was first saved to.
  digest->Add(std::string_view(stored.record).substr(stored.record.find('/') + 1));
  digest->Add(static_cast<int64_t>(stored.dtype));
  AddNumbers(stored.shape, digest);
  AddNumbers(stored.strides, digest);
  digest->Add(stored.storage_offset);
  digest->Add(static_cast<int64_t>(stored.nbytes));
}

}  // namespace

void Digest::Add(int64_t number) {
  for (int i = 0; i < 8; ++i)
    bytes_.push_back(static_cast<char>(static_cast<uint64_t>(number) >> (8 * i)));
}

void Digest::Add(double number) { Add(std::bit_cast<int64_t>(number)); }

void Digest::Add(std::string_view text) {
  Add(static_cast<int64_t>(text.size()));
  bytes_.append(text);
}

std::string Digest::Hex() const {
  unsigned char out[EVP_MAX_MD_SIZE];
  if (EVP_Digest(bytes_.data(), bytes_.size(), out, nullptr, EVP_sha256(), nullptr) != 1) return "";
  return absl::BytesToHexString({reinterpret_cast<const char*>(out), kDigestBytes});
}

void AddGraph(const Graph& graph, Digest* digest) {
  digest->Add(static_cast<int64_t>(graph.values.size()));
  for (const Value& value : graph.values) {
    digest->Add(value.name);
    digest->Add(static_cast<int64_t>(value.type));
    digest->Add(static_cast<int64_t>(value.dtype));
    AddDims(value.shape, digest);
    AddDims(value.strides, digest);
    digest->Add(value.hint.value_or(-1));
    digest->Add(value.expr);
    digest->Add(int64_t{value.stored});
  }
  digest->Add(static_cast<int64_t>(graph.nodes.size()));
  for (const Node& node : graph.nodes) AddNode(node, digest);
  digest->Add(static_cast<int64_t>(graph.stored.size()));
  for (const Stored& stored : graph.stored) AddStored(stored, digest);
  digest->Add(static_cast<int64_t>(graph.inputs.size()));
  for (const Input& input : graph.inputs) {
    digest->Add(input.name);
    digest->Add(int64_t{input.value});
  }
  digest->Add(static_cast<int64_t>(graph.outputs.size()));
  for (const Output& output : graph.outputs) {
    digest->Add(output.name);
    AddItem(output.item, digest);
  }
  for (const auto& [symbol, range] : graph.symbols) {
    digest->Add(symbol);
    digest->Add(range.min);
    digest->Add(range.max);
  }
}

}  // namespace echelon::graph
