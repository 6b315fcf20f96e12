#include "runtime/graph/archive.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

constexpr uint64_t kMaxJsonBytes = 512u << 20;
constexpr int kMaxJsonDepth = 200;
constexpr std::string_view kModels = "/models/";
constexpr std::string_view kJson = ".json";

absl::StatusOr<std::string> ReadText(const ByteSource& source, const ZipEntry& entry) {
  if (entry.nbytes > kMaxJsonBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(source.name(), ": ", Quoted(entry.name),
                                                     " has ", entry.nbytes, " bytes; at most ",
                                                     kMaxJsonBytes, " are read"));
  }
  std::string text(entry.nbytes, '\0');
  ECHELON_RETURN_IF_ERROR(source.Read(entry.offset, entry.nbytes, text.data()));
  return text;
}

absl::Status CheckByteOrder(const ByteSource& source, const ZipEntry* entry) {
  if (!entry) return absl::OkStatus();
  if (entry->nbytes == 6) {
    ECHELON_ASSIGN_OR_RETURN(const std::string order, ReadText(source, *entry));
    if (order == "little") return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      source.name(), ": weights are not little-endian; save the model on such a machine"));
}

}  // namespace

absl::StatusOr<Archive> Archive::Open(const ByteSource& source) {
  ECHELON_ASSIGN_OR_RETURN(Zip zip, Zip::Open(source));
  std::vector<std::string> models;
  std::string root, model;
  for (const ZipEntry& entry : zip.entries()) {
    const std::string_view name = entry.name;
    const size_t slash = name.find('/');
    if (slash == name.npos || !name.substr(slash).starts_with(kModels) || !name.ends_with(kJson)) {
      if (name.ends_with("serialized_exported_program.json")) {
        return absl::InvalidArgumentError(absl::StrCat(
            source.name(), ": an older .pt2 format; save it again with PyTorch 2.9 or newer"));
      }
      continue;
    }
    const size_t begin = slash + kModels.size();
    if (name.size() < begin + kJson.size()) continue;
    root = name.substr(0, slash);
    model = name.substr(begin, name.size() - kJson.size() - begin);
    models.push_back(Quoted(model));
  }
  if (models.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        source.name(), ": no models/*.json inside; is it a file of torch.export.save?"));
  }
  if (models.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(source.name(), ": holds several models, ",
                                                   absl::StrJoin(models, ", "),
                                                   "; save one a file"));
  }
  ECHELON_RETURN_IF_ERROR(CheckByteOrder(source, zip.Find(absl::StrCat(root, "/byteorder"))));
  Archive archive(source, std::move(zip));
  archive.root_ = std::move(root);
  archive.model_ = std::move(model);
  return archive;
}

bool Archive::Has(const std::string& path) const {
  return zip_.Find(absl::StrCat(root_, "/", path)) != nullptr;
}

absl::StatusOr<Json> Archive::Document(const std::string& path) const {
  const ZipEntry* entry = zip_.Find(absl::StrCat(root_, "/", path));
  const std::string where = absl::StrCat(source_->name(), ": ", path);
  if (!entry) return absl::NotFoundError(absl::StrCat(where, " is missing from the archive"));
  ECHELON_ASSIGN_OR_RETURN(const std::string text, ReadText(*source_, *entry));
  return ParseJson(text, kMaxJsonDepth, where);
}

}  // namespace echelon::graph
