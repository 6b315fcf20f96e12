#include "runtime/graph/weights_table.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/graph/status_macros.h"
#include "runtime/graph/tensor_meta.h"
#include "runtime/tensor/tensor.h"

namespace echelon::graph {
namespace {

std::vector<int64_t> Numbers(JsonReader& reader, const std::vector<Dim>& dims) {
  std::vector<int64_t> numbers;
  for (const Dim& dim : dims) {
    if (dim.symbolic()) reader.Fail("a stored tensor of symbolic shape");
    numbers.push_back(dim.hint);
  }
  return numbers;
}

void ReadMeta(JsonReader& reader, const Json& meta, Stored* stored) {
  DimReader dims;
  const TensorMeta read = ReadTensorMeta(reader, dims, meta);
  if (!reader.ok()) return;
  stored->dtype = read.dtype;
  stored->shape = Numbers(reader, read.shape);
  stored->strides = Numbers(reader, read.strides);
  if (read.storage_offset.symbolic()) reader.Fail("a symbolic storage offset");
  stored->storage_offset = read.storage_offset.hint;
  for (const int64_t stride : stored->strides) {
    if (stride < 0) reader.Fail("a negative stride");
  }
}

// Bytes from the record's start to the end of the furthest element; -1 when that overflows.
int64_t Extent(const Stored& stored) {
  if (ElementsOf(stored.shape) == 0) return 0;
  int64_t last = stored.storage_offset;
  for (size_t i = 0; i < stored.shape.size(); ++i) {
    int64_t reach;
    if (__builtin_mul_overflow(stored.shape[i] - 1, stored.strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return -1;
    }
  }
  int64_t bytes;
  if (__builtin_add_overflow(last, 1, &last) ||
      __builtin_mul_overflow(last, static_cast<int64_t>(ElementBytes(stored.dtype)), &bytes)) {
    return -1;
  }
  return bytes;
}

}  // namespace

absl::StatusOr<WeightsTable> WeightsTable::Read(const Archive& archive) {
  WeightsTable table;
  table.file_ = archive.source().name();
  ECHELON_RETURN_IF_ERROR(
      table.Add(archive, "data/weights/", absl::StrCat(archive.model(), "_weights_config.json")));
  ECHELON_RETURN_IF_ERROR(table.Add(archive, "data/constants/",
                                    absl::StrCat(archive.model(), "_constants_config.json")));
  return table;
}

absl::Status WeightsTable::Add(const Archive& archive, const std::string& folder,
                               const std::string& config) {
  const std::string path = folder + config;
  if (!archive.Has(path))
    return absl::OkStatus();  // a tensor the graph wants is then found missing
  ECHELON_ASSIGN_OR_RETURN(const Json document, archive.Document(path));
  JsonReader reader(absl::StrCat(file_, ": ", path));
  const Json& tensors = reader.Object(document, "config");
  for (auto entry = tensors.begin(); entry != tensors.end() && reader.ok(); ++entry) {
    reader.set_subject(absl::StrCat("tensor ", Quoted(entry.key())));
    Entry added;
    added.stored.name = entry.key();
    added.stored.path = file_;
    const Json* pickled = reader.Find(entry.value(), "use_pickle");
    added.pickled = pickled && reader.AsBool(*pickled, "use_pickle");
    added.stored.record =
        absl::StrCat(archive.root(), "/", folder, reader.String(entry.value(), "path_name"));
    if (!added.pickled) ReadMeta(reader, reader.At(entry.value(), "tensor_meta"), &added.stored);
    if (const ZipEntry* record = archive.zip().Find(added.stored.record)) {
      added.has_record = true;
      added.stored.offset = record->offset;
      added.stored.nbytes = record->nbytes;
      added.stored.crc32 = record->crc32;
    }
    entries_.emplace(entry.key(), std::move(added));
  }
  return reader.status();
}

absl::StatusOr<Stored> WeightsTable::Find(const std::string& name, bool allow_empty) const {
  const std::string who = absl::StrCat(file_, ": tensor ", Quoted(name));
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(absl::StrCat(who, " is in neither weights nor constants"));
  }
  const Entry& entry = found->second;
  if (entry.pickled) {
    return absl::InvalidArgumentError(
        absl::StrCat(who, " is pickled; save plain tensors, not tensor subclasses"));
  }
  if (!entry.has_record) {
    return absl::NotFoundError(absl::StrCat(who, ": record ", Quoted(entry.stored.record),
                                            " is missing from the archive"));
  }
  const int64_t extent = Extent(entry.stored);
  const bool fits = extent >= 0 && static_cast<uint64_t>(extent) <= entry.stored.nbytes;
  if (fits || (allow_empty && entry.stored.nbytes == 0)) return entry.stored;
  if (entry.stored.nbytes == 0) {
    return absl::DataLossError(
        absl::StrCat(who, " has no values: it was exported from fake tensors"));
  }
  return absl::DataLossError(
      absl::StrCat(who, ": shape ", ShapeText(entry.stored.shape), " ",
                   extent < 0 ? "overflows" : absl::StrCat("needs ", extent, " bytes"),
                   ", its record has ", entry.stored.nbytes));
}

}  // namespace echelon::graph
