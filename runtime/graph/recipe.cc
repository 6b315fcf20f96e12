#include "runtime/graph/recipe.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/tensor/tensor.h"

namespace echelon::graph {
namespace {

constexpr int kMostLevels = 64;
constexpr int kMostParts = 1'000'000;

class RecipeReader {
 public:
  explicit RecipeReader(JsonReader& reader) : reader_(reader) {}

  Recipe Read(const Json& json, int level) {
    Recipe recipe;
    if (level > kMostLevels) reader_.Fail("a recipe is nested too deeply");
    if (++parts_ > kMostParts) reader_.Fail("a recipe has too many parts");
    if (!reader_.ok()) return recipe;
    if (const Json* tensor = reader_.Find(json, "tensor")) {
      recipe.tensor = reader_.AsString(*tensor, "tensor");
      return recipe;
    }
    const std::string& op = reader_.String(json, "op");
    if (op == "cat" || op == "stack") {
      recipe.op = op == "cat" ? Recipe::kCat : Recipe::kStack;
      recipe.dim = Dim(reader_.Int(json, "dim"));
      const Json& of = reader_.Array(json, "of");
      if (of.empty()) reader_.Fail("a recipe joins nothing");
      for (size_t i = 0; i < of.size() && reader_.ok(); ++i)
        recipe.of.push_back(Read(of[i], level + 1));
      return recipe;
    }
    if (op == "slice") {
      recipe.op = Recipe::kSlice;
      recipe.dim = Dim(reader_.Int(json, "dim"));
      recipe.start = Size(reader_.Int(json, "start"));
      recipe.length = Size(reader_.Int(json, "length"));
    } else if (op == "transpose") {
      recipe.op = Recipe::kTranspose;
      const std::vector<int64_t> dims = Numbers(reader_.Array(json, "dims"));
      if (dims.size() != 2) reader_.Fail("a transpose swaps two dimensions");
      if (!reader_.ok()) return recipe;
      recipe.dim = Dim(dims[0]);
      recipe.other = Dim(dims[1]);
    } else if (op == "reshape") {
      recipe.op = Recipe::kReshape;
      recipe.shape = Numbers(reader_.Array(json, "shape"));
    } else if (op == "cast") {
      recipe.op = Recipe::kCast;
      const std::string& name = reader_.String(json, "dtype");
      const std::optional<DType> dtype = DTypeOf(name);
      if (reader_.ok() && !dtype) reader_.Fail(absl::StrCat("a cast to ", name));
      recipe.dtype = dtype.value_or(DType::kF32);
    } else {
      reader_.Fail(absl::StrCat("a recipe does '", op, "', which is not known"));
    }
    if (reader_.ok()) recipe.of.push_back(Read(reader_.At(json, "of"), level + 1));
    return recipe;
  }

 private:
  static std::optional<DType> DTypeOf(const std::string& name) {
    if (name == "f32") return DType::kF32;
    if (name == "bf16") return DType::kBF16;
    if (name == "f16") return DType::kF16;
    return std::nullopt;
  }

  int64_t Dim(int64_t dim) {
    if (dim < 0 || dim >= 16) reader_.Fail(absl::StrCat("a recipe's dimension is ", dim));
    return dim;
  }

  int64_t Size(int64_t size) {
    if (size < 0) reader_.Fail("a recipe's size is negative");
    return size;
  }

  std::vector<int64_t> Numbers(const Json& array) {
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < array.size() && i < 16 && reader_.ok(); ++i)
      numbers.push_back(Size(reader_.AsInt(array[i], "size")));
    return numbers;
  }

  JsonReader& reader_;
  int parts_ = 0;
};

}  // namespace

Recipe ReadRecipe(JsonReader& reader, const Json& json) {
  return RecipeReader(reader).Read(json, 0);
}

std::string ToText(const Recipe& recipe) {
  const std::string of = absl::StrJoin(recipe.of, ", ", [](std::string* out, const Recipe& part) {
    absl::StrAppend(out, ToText(part));
  });
  switch (recipe.op) {
    case Recipe::kTensor:
      return recipe.tensor;
    case Recipe::kCat:
      return absl::StrCat("cat(", recipe.dim, ", ", of, ")");
    case Recipe::kStack:
      return absl::StrCat("stack(", recipe.dim, ", ", of, ")");
    case Recipe::kSlice:
      return absl::StrCat("slice(", of, ", ", recipe.dim, ", ", recipe.start, ":",
                          recipe.start + recipe.length, ")");
    case Recipe::kTranspose:
      return absl::StrCat("transpose(", of, ", ", recipe.dim, ", ", recipe.other, ")");
    case Recipe::kReshape:
      return absl::StrCat("reshape(", of, ", ", ShapeText(recipe.shape), ")");
    case Recipe::kCast:
      return absl::StrCat("cast(", of, ", ", std::string(Name(recipe.dtype)), ")");
  }
  return "";
}

}  // namespace echelon::graph
