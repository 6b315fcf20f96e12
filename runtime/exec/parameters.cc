#include "runtime/exec/parameters.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/exec/convert.h"
#include "runtime/tensor/tensor.h"

namespace echelon::exec {

std::string Parameters::KeyOf(const graph::Stored& stored) {
  if (stored.recipe) return absl::StrCat(stored.record, " ", static_cast<int>(stored.dtype));
  return absl::StrCat(stored.path, ":", stored.offset, "+", stored.nbytes);
}

void Parameters::AddRanges(const weights::Source& source) {
  bool follows = false;
  for (const weights::Range& range : source.ranges) {
    ranges_.push_back(range);
    ranges_.back().follows = std::exchange(follows, true);
    read_bytes_ += range.nbytes;
  }
  for (const weights::Source& part : source.of) AddRanges(part);
}

absl::Status Parameters::Add(const graph::Stored& stored) {
  const auto [at, is_new] = entries_.try_emplace(KeyOf(stored));
  Entry& entry = at->second;
  ++entry.users;
  if (!is_new) return absl::OkStatus();
  entry.first = ranges_.size();
  nbytes_ += stored.nbytes;
  if (!stored.recipe) {
    weights::Range range{stored.path, stored.offset, stored.nbytes};
    range.name = stored.name;
    if (verify_ && stored.crc32 != 0) range.crc32 = stored.crc32;
    entry.source.ranges = {range};
  } else {
    if (!checkpoint_)
      return absl::FailedPreconditionError(
          absl::StrCat("parameter ", stored.name,
                       " lies in a checkpoint; name the model's directory by --weights"));
    absl::StatusOr<weights::Source> source = checkpoint_->Resolve(*stored.recipe);
    if (!source.ok())
      return absl::Status(source.status().code(),
                          absl::StrCat("parameter ", stored.name, ": ", source.status().message()));
    if (source->dtype != stored.dtype || source->shape != stored.shape)
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter ", stored.name, " is ", std::string(Name(source->dtype)), "[",
          ShapeText(source->shape), "] in the checkpoint and ", std::string(Name(stored.dtype)),
          "[", ShapeText(stored.shape), "] in the model; export the model again"));
    entry.source = *std::move(source);
  }
  AddRanges(entry.source);
  return absl::OkStatus();
}

absl::Status Parameters::Load(weights::WeightSource& source, int threads,
                              const weights::Progress& progress, uint64_t kv_bytes) {
  // What a parameter is computed from goes once it is made.
  const weights::Beside beside{.computed_bytes = nbytes_ - std::min(nbytes_, read_bytes_),
                               .kv_bytes = kv_bytes};
  absl::StatusOr<weights::Loaded> loaded =
      weights::Load(source, ranges_, threads, progress, beside);
  if (!loaded.ok()) return loaded.status();
  loaded_ = *std::move(loaded);
  return absl::OkStatus();
}

at::Tensor Parameters::Evaluate(const weights::Source& source, size_t* range) {
  if (!source.is_computed) {
    const auto options = at::TensorOptions().dtype(ToTorch(source.dtype));
    if (source.ranges.empty()) return at::empty(source.shape, options);
    std::byte* data = loaded_.at[*range];
    *range += source.ranges.size();
    return at::from_blob(
        data, source.shape, [arena = loaded_.arena](void*) {}, options);
  }
  std::vector<at::Tensor> of;
  for (const weights::Source& part : source.of) of.push_back(Evaluate(part, range));
  switch (source.op) {
    case graph::Recipe::kCat:
      return at::cat(of, source.dim);
    case graph::Recipe::kSlice:
      return of[0].narrow(source.dim, source.start, source.length);
    case graph::Recipe::kTranspose:
      return of[0].transpose(source.dim, source.other);
    case graph::Recipe::kReshape:
      return of[0].reshape(source.shape);
    default:
      return of[0].to(ToTorch(source.dtype));
  }
}

at::Tensor Parameters::Make(const graph::Stored& stored) {
  Entry& entry = entries_.at(KeyOf(stored));
  if (entry.source.is_computed) {
    if (entry.made.defined()) return entry.made;
    size_t range = entry.first;
    // Always a copy: a view would need the bytes that were read.
    at::Tensor made = Evaluate(entry.source, &range).clone(at::MemoryFormat::Contiguous);
    for (size_t i = entry.first; i < range; ++i)
      loaded_.arena->Release({loaded_.at[i], ranges_[i].nbytes});
    if (entry.users > 1) entry.made = made;
    return made;
  }
  const auto options = at::TensorOptions().dtype(ToTorch(stored.dtype));
  if (stored.nbytes == 0) return at::empty(stored.shape, options);
  std::byte* begin = loaded_.at[entry.first] +
                     stored.storage_offset * static_cast<int64_t>(ElementBytes(stored.dtype));
  return at::from_blob(
      begin, stored.shape, stored.strides, [arena = loaded_.arena](void*) {}, options);
}

std::optional<absl::Span<std::byte>> Parameters::OwnBytes(const graph::Stored& stored) const {
  const Entry& entry = entries_.at(KeyOf(stored));
  if (entry.users > 1 || stored.nbytes == 0) return std::nullopt;
  if (entry.source.is_computed) return absl::Span<std::byte>();
  return absl::MakeSpan(loaded_.at[entry.first], stored.nbytes);
}

}  // namespace echelon::exec
