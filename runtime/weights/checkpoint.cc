#include "runtime/weights/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/tensor/tensor.h"
#include "runtime/weights/safetensors.h"

namespace echelon::weights {
namespace {

using graph::Recipe;

constexpr size_t kMostIndexBytes = 256 << 20;
constexpr size_t kMostRanges = 1 << 16;  // of one parameter; more are read whole and joined

int64_t Product(const std::vector<int64_t>& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t i = begin; i < end; ++i) product *= shape[i];
  return product;
}

// Bytes [begin, begin + nbytes) of what the ranges are together.
void AppendBytes(const std::vector<Range>& ranges, uint64_t begin, uint64_t nbytes,
                 std::vector<Range>* out) {
  for (const Range& range : ranges) {
    if (nbytes == 0) return;
    if (begin >= range.nbytes) {
      begin -= range.nbytes;
      continue;
    }
    Range part = range;
    part.offset += begin;
    part.nbytes = std::min(nbytes, range.nbytes - begin);
    const bool continues = !out->empty() && out->back().path == part.path &&
                           out->back().offset + out->back().nbytes == part.offset;
    if (continues)
      out->back().nbytes += part.nbytes;
    else
      out->push_back(part);
    nbytes -= part.nbytes;
    begin = 0;
  }
}

bool AnyComputed(const std::vector<Source>& of) {
  return std::any_of(of.begin(), of.end(), [](const Source& source) { return source.is_computed; });
}

// Row-major, a slice of a dimension is one run for each index of those before it.
bool SliceBytes(const Source& of, int64_t dim, int64_t start, int64_t length, Source* out) {
  const int64_t outer = Product(of.shape, 0, dim);
  const uint64_t inner = Product(of.shape, dim + 1, of.shape.size()) * ElementBytes(of.dtype);
  if (of.is_computed || static_cast<size_t>(outer) > kMostRanges) return false;
  for (int64_t i = 0; i < outer; ++i)
    AppendBytes(of.ranges, (i * of.shape[dim] + start) * inner, length * inner, &out->ranges);
  return true;
}

bool JoinBytes(const std::vector<Source>& of, int64_t dim, Source* out) {
  const int64_t outer = Product(of[0].shape, 0, dim);
  if (AnyComputed(of) || outer * of.size() > kMostRanges) return false;
  for (int64_t i = 0; i < outer; ++i)
    for (const Source& part : of) {
      const uint64_t run = Product(part.shape, dim, part.shape.size()) * ElementBytes(part.dtype);
      AppendBytes(part.ranges, i * run, run, &out->ranges);
    }
  return true;
}

absl::Status Misfit(const Recipe& recipe, const std::vector<Source>& of) {
  std::string shapes;
  for (const Source& part : of)
    absl::StrAppend(&shapes, shapes.empty() ? "" : ", ", ShapeText(part.shape));
  std::string text = graph::ToText(recipe);
  if (text.size() > 200) text = absl::StrCat(text.substr(0, 200), "...");
  return absl::InvalidArgumentError(absl::StrCat("the checkpoint's tensors (", shapes,
                                                 ") do not fit ", text,
                                                 "; export the model again from this directory"));
}

absl::StatusOr<nlohmann::json> ReadIndex(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) > kMostIndexBytes || error)
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": cannot be read, or is larger than 256 MiB"));
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  absl::StatusOr<nlohmann::json> json = ParseObject(absl::StrCat(path.string(), ":"), text);
  if (!json.ok()) return json;
  if (!json->contains("weight_map") || !(*json)["weight_map"].is_object())
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": is no index of safetensors (no weight_map)"));
  return json;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const std::filesystem::path folder = directory;
  const std::filesystem::path single = folder / "model.safetensors";
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  // As transformers and the exporter have it: an index beside a whole file is not read.
  std::error_code ignored;  // what cannot be looked at cannot be opened: that names the reason
  if (std::filesystem::exists(single, ignored) || !std::filesystem::exists(index, ignored)) {
    const absl::Status status = checkpoint.AddFile(single.string());
    if (!status.ok()) return status;
    return checkpoint;
  }
  const absl::StatusOr<nlohmann::json> json = ReadIndex(index);
  if (!json.ok()) return json.status();
  std::map<std::string, std::string> file_of;
  std::set<std::string> files;
  for (const auto& [name, file] : (*json)["weight_map"].items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (text.empty() || text.find('/') != std::string::npos || text == "..")
      return absl::InvalidArgumentError(absl::StrCat(index.string(), ": tensor ", name,
                                                     " is said to lie in '", text,
                                                     "', which is no file of this directory"));
    file_of[name] = text;
    files.insert(text);
  }
  for (const std::string& file : files) {
    const absl::Status status = checkpoint.AddFile((folder / file).string());
    if (!status.ok()) return status;
  }
  for (const auto& [name, file] : file_of) {
    const auto found = checkpoint.tensors_.find(name);
    if (found == checkpoint.tensors_.end() || found->second.range.path != (folder / file).string())
      return absl::NotFoundError(absl::StrCat(index.string(), ": tensor ", name, " is not in ",
                                              file, "; copy the checkpoint again"));
  }
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  const auto header = ReadSafetensorsHeader(path);
  if (!header.ok()) return header.status();
  for (const auto& [name, tensor] : *header) {
    Range range{path, tensor.offset, tensor.nbytes};
    range.name = name;
    const auto [at, is_new] =
        tensors_.emplace(name, Tensor{tensor.dtype, tensor.shape, std::move(range)});
    if (!is_new)
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", name, " is in ",
                                                     at->second.range.path,
                                                     " too; copy the checkpoint again"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Source> Checkpoint::Resolve(const Recipe& recipe) const {
  if (recipe.op == Recipe::kTensor) {
    const auto found = tensors_.find(recipe.tensor);
    if (found == tensors_.end())
      return absl::NotFoundError(absl::StrCat(directory_, ": the checkpoint has no tensor ",
                                              recipe.tensor,
                                              "; export the model again from this directory"));
    Source source{.dtype = found->second.dtype, .shape = found->second.shape};
    if (found->second.range.nbytes > 0) source.ranges.push_back(found->second.range);
    return source;
  }
  std::vector<Source> of;
  for (const Recipe& part : recipe.of) {
    absl::StatusOr<Source> source = Resolve(part);
    if (!source.ok()) return source.status();
    of.push_back(*std::move(source));
  }
  if (recipe.op != Recipe::kStack) return Apply(recipe, std::move(of));
  // A stack is a join along a new dimension of one.
  for (Source& part : of) {
    if (recipe.dim > static_cast<int64_t>(part.shape.size())) return Misfit(recipe, of);
    std::vector<int64_t> shape = part.shape;
    shape.insert(shape.begin() + recipe.dim, 1);
    Recipe reshape{.op = Recipe::kReshape, .shape = std::move(shape)};
    absl::StatusOr<Source> reshaped = Apply(reshape, {std::move(part)});
    if (!reshaped.ok()) return reshaped.status();
    part = *std::move(reshaped);
  }
  return Apply({.op = Recipe::kCat, .dim = recipe.dim}, std::move(of));
}

absl::StatusOr<Source> Checkpoint::Apply(const Recipe& recipe, std::vector<Source> of) const {
  Source out{.dtype = of[0].dtype,
             .shape = of[0].shape,
             .op = recipe.op,
             .dim = recipe.dim,
             .other = recipe.other,
             .start = recipe.start,
             .length = recipe.length};
  const auto rank = static_cast<int64_t>(out.shape.size());
  bool as_bytes = false;
  switch (recipe.op) {
    case Recipe::kReshape:
      if (ElementsOf(recipe.shape) != ElementsOf(out.shape)) return Misfit(recipe, of);
      out.shape = recipe.shape;
      as_bytes = !of[0].is_computed;
      if (as_bytes) out.ranges = of[0].ranges;
      break;
    case Recipe::kSlice:
      if (recipe.dim >= rank || recipe.start > out.shape[recipe.dim] ||
          recipe.length > out.shape[recipe.dim] - recipe.start)
        return Misfit(recipe, of);
      out.shape[recipe.dim] = recipe.length;
      as_bytes = SliceBytes(of[0], recipe.dim, recipe.start, recipe.length, &out);
      break;
    case Recipe::kCat:
      if (recipe.dim >= rank) return Misfit(recipe, of);
      out.shape[recipe.dim] = 0;
      for (const Source& part : of) {
        if (part.dtype != out.dtype || static_cast<int64_t>(part.shape.size()) != rank)
          return Misfit(recipe, of);
        for (int64_t i = 0; i < rank; ++i)
          if (i != recipe.dim && part.shape[i] != out.shape[i]) return Misfit(recipe, of);
        out.shape[recipe.dim] += part.shape[recipe.dim];
      }
      as_bytes = JoinBytes(of, recipe.dim, &out);
      break;
    case Recipe::kTranspose:
      if (recipe.dim >= rank || recipe.other >= rank) return Misfit(recipe, of);
      std::swap(out.shape[recipe.dim], out.shape[recipe.other]);
      break;
    case Recipe::kCast:
      as_bytes = recipe.dtype == out.dtype && !of[0].is_computed;
      if (as_bytes) out.ranges = of[0].ranges;
      out.dtype = recipe.dtype;
      break;
    default:
      return absl::InternalError("a recipe of no kind");
  }
  out.is_computed = !as_bytes;
  if (out.is_computed) out.of = std::move(of);
  return out;
}

}  // namespace echelon::weights
