#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/graph/graph_builder.h"

namespace echelon::graph {
namespace {

// "key,path,type": the key is made of the path and so holds as many commas; a type holds none.
std::string_view PathOf(std::string_view entry) {
  const size_t last = entry.rfind(',');
  if (last == entry.npos) return "";
  const std::string_view rest = entry.substr(0, last);
  const auto commas = std::count(rest.begin(), rest.end(), ',');
  if (commas % 2 == 0) return "";
  size_t middle = 0;
  for (long i = 0; i <= commas / 2; ++i) middle = rest.find(',', middle + (i > 0));
  return rest.substr(middle + 1);
}

// A model that iterates over layers[2:] has "layers.slice(2, None, None).0" for layers.2.
std::string WithoutSlices(std::string_view path) {
  std::string out;
  int64_t shift = 0;
  bool shifted = false;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(std::string(path), '.'))) {
    const std::string_view rest = part;
    if (rest.starts_with("slice(") && rest.ends_with(")")) {
      const std::string start(rest.substr(6, rest.find_first_of(",)") - 6));
      int64_t number = 0;
      if (start != "None" && absl::SimpleAtoi(start, &number)) shift += number;
      shifted = true;
      continue;
    }
    int64_t index = 0;
    std::string text = part;
    if (shifted && absl::SimpleAtoi(part, &index)) text = absl::StrCat(index + shift);
    shift = 0, shifted = false;
    absl::StrAppend(&out, out.empty() ? "" : ".", text);
  }
  return out;
}

}  // namespace

std::string InnermostModule(std::string_view stack) {
  const size_t last = stack.rfind(';');
  std::string path(PathOf(last == stack.npos ? stack : stack.substr(last + 1)));
  if (path == "_empty_nn_module_stack_from_metadata_hook") return "";
  const size_t call = path.find('@');  // the second call of one module: "net1@1"
  if (call != path.npos) path.resize(call);
  // Strict mode writes L['self'].net1 or L['self']._modules['net1'].
  path =
      absl::StrReplaceAll(path, {{"L['self']", ""}, {"._modules['", "."}, {"']", ""}, {"['", "."}});
  path.erase(0,
             path.find_first_not_of('.') == path.npos ? path.size() : path.find_first_not_of('.'));
  return WithoutSlices(path);
}

}  // namespace echelon::graph
