#include "runtime/graph/zip.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/graph/status_macros.h"

namespace echelon::graph {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocatorSignature = 0x07064b50;
constexpr uint32_t kCentralSignature = 0x02014b50, kLocalSignature = 0x04034b50;
constexpr uint64_t kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kCentralBytes = 46, kLocalBytes = 30;
constexpr uint64_t kMaxDirectoryBytes = 256u << 20;
constexpr uint64_t kMaxNameBytes = 4096;
constexpr uint16_t kEncrypted = 1;

template <class T>
T Little(const char* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<uint8_t>(at[i])) << (8 * i));
  }
  return value;
}
uint16_t U16(const char* at) { return Little<uint16_t>(at); }
uint32_t U32(const char* at) { return Little<uint32_t>(at); }
uint64_t U64(const char* at) { return Little<uint64_t>(at); }

absl::Status Damaged(const ByteSource& source, const std::string& what) {
  return absl::DataLossError(absl::StrCat(source.name(), ": damaged or truncated archive: ", what));
}

struct Directory {
  uint64_t offset = 0, nbytes = 0, count = 0;
};

// Where the directory lies when a zip64 end record stands before the plain one.
absl::StatusOr<std::optional<Directory>> FindDirectory64(const ByteSource& source, uint64_t end) {
  if (end < kLocatorBytes) return std::nullopt;
  char locator[kLocatorBytes];
  ECHELON_RETURN_IF_ERROR(source.Read(end - kLocatorBytes, kLocatorBytes, locator));
  if (U32(locator) != kLocatorSignature) return std::nullopt;
  const uint64_t at = U64(locator + 8), limit = end - kLocatorBytes;
  if (at > limit || limit - at < kEnd64Bytes) return Damaged(source, "zip64 end lies outside");
  char record[kEnd64Bytes];
  ECHELON_RETURN_IF_ERROR(source.Read(at, kEnd64Bytes, record));
  if (U32(record) != kEnd64Signature) return Damaged(source, "no zip64 end where it should be");
  if (U32(record + 16) != 0 || U32(record + 20) != 0) return Damaged(source, "several disks");
  const Directory found{U64(record + 48), U64(record + 40), U64(record + 32)};
  if (found.offset > at || found.nbytes > at - found.offset) {
    return Damaged(source, "its directory lies outside the file");
  }
  return found;
}

absl::StatusOr<Directory> FindDirectory(const ByteSource& source) {
  const uint64_t tail = std::min<uint64_t>(source.size(), kEndBytes + UINT16_MAX);
  std::string bytes(tail, '\0');
  ECHELON_RETURN_IF_ERROR(source.Read(source.size() - tail, tail, bytes.data()));
  for (uint64_t left = kEndBytes; left <= tail; ++left) {  // from the end: a comment may follow
    const char* record = bytes.data() + (tail - left);
    if (U32(record) != kEndSignature || U16(record + 20) != left - kEndBytes) continue;
    const uint64_t end = source.size() - left;
    ECHELON_ASSIGN_OR_RETURN(const std::optional<Directory> large, FindDirectory64(source, end));
    if (large) return *large;
    if (U16(record + 4) != 0 || U16(record + 6) != 0) return Damaged(source, "several disks");
    const Directory found{U32(record + 16), U32(record + 12), U16(record + 10)};
    if (found.offset > end || found.nbytes > end - found.offset) {
      return Damaged(source, "its directory lies outside the file");
    }
    return found;
  }
  return absl::DataLossError(absl::StrCat(
      source.name(), ": not a .pt2 archive, or a truncated one: no zip directory at its end"));
}

struct Record {  // one entry of the directory, before its local header is seen
  ZipEntry entry;
  uint64_t header = 0, end = 0;
};

// The zip64 extra field holds, in this order, just those of the three that read all ones.
absl::Status Widen(const ByteSource& source, std::string_view extra, uint64_t* size,
                   uint64_t* stored, uint64_t* header) {
  std::vector<uint64_t*> wanted;
  for (uint64_t* field : {size, stored, header}) {
    if (*field == UINT32_MAX) wanted.push_back(field);
  }
  if (wanted.empty()) return absl::OkStatus();
  while (extra.size() >= 4) {
    const uint16_t tag = U16(extra.data()), length = U16(extra.data() + 2);
    extra.remove_prefix(4);
    if (length > extra.size()) break;
    if (tag == 1) {
      if (length < 8 * wanted.size()) break;
      for (size_t i = 0; i < wanted.size(); ++i) *wanted[i] = U64(extra.data() + 8 * i);
      return absl::OkStatus();
    }
    extra.remove_prefix(length);
  }
  return Damaged(source, "an entry's zip64 sizes are missing");
}

// Takes one record off the front of `rest`.
absl::StatusOr<Record> TakeRecord(const ByteSource& source, std::string_view* rest) {
  const char* at = rest->data();
  if (rest->size() < kCentralBytes || U32(at) != kCentralSignature) {
    return Damaged(source, "its directory ends early");
  }
  const uint64_t name = U16(at + 28), extra = U16(at + 30), comment = U16(at + 32);
  if (rest->size() - kCentralBytes < name + extra + comment || name > kMaxNameBytes) {
    return Damaged(source, "its directory ends early");
  }
  Record record;
  record.entry.name = std::string(at + kCentralBytes, name);
  record.entry.crc32 = U32(at + 16);
  const std::string who = absl::StrCat(source.name(), ": entry ", Quoted(record.entry.name));
  if (U16(at + 8) & kEncrypted)
    return absl::InvalidArgumentError(absl::StrCat(who, " is encrypted"));
  if (U16(at + 10) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(who, " is compressed; save the model again with torch.export.save"));
  }
  uint64_t size = U32(at + 24), stored = U32(at + 20);
  record.header = U32(at + 42);
  ECHELON_RETURN_IF_ERROR(
      Widen(source, rest->substr(kCentralBytes + name, extra), &size, &stored, &record.header));
  if (size != stored)
    return Damaged(source, absl::StrCat("entry ", Quoted(record.entry.name), " states two sizes"));
  record.entry.nbytes = size;
  rest->remove_prefix(kCentralBytes + name + extra + comment);
  return record;
}

// The data begin after the local header, whose lengths differ from the directory's (padding for
// alignment).
absl::Status PlaceData(const ByteSource& source, uint64_t limit, Record* record) {
  const std::string who = absl::StrCat("entry ", Quoted(record->entry.name));
  const std::string& name = record->entry.name;
  const uint64_t fixed = kLocalBytes + name.size();
  if (record->header > limit || limit - record->header < fixed) {
    return Damaged(source, absl::StrCat(who, " lies outside the file"));
  }
  std::string header(fixed, '\0');
  ECHELON_RETURN_IF_ERROR(source.Read(record->header, fixed, header.data()));
  if (U32(header.data()) != kLocalSignature || U16(header.data() + 26) != name.size() ||
      std::string_view(header).substr(kLocalBytes) != name) {
    return Damaged(source, absl::StrCat(who, " has no header where the directory says"));
  }
  record->entry.offset = record->header + fixed + U16(header.data() + 28);
  if (record->entry.offset > limit || record->entry.nbytes > limit - record->entry.offset) {
    return Damaged(source, absl::StrCat(who, " lies outside the file"));
  }
  record->end = record->entry.offset + record->entry.nbytes;
  return absl::OkStatus();
}

absl::Status CheckNoOverlap(const ByteSource& source, const std::vector<Record>& records) {
  std::vector<const Record*> sorted;
  for (const Record& record : records) sorted.push_back(&record);
  std::sort(sorted.begin(), sorted.end(),
            [](const Record* a, const Record* b) { return a->header < b->header; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->end > sorted[i]->header) {
      return Damaged(source, absl::StrCat("entries ", Quoted(sorted[i - 1]->entry.name), " and ",
                                          Quoted(sorted[i]->entry.name), " overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Zip> Zip::Open(const ByteSource& source) {
  ECHELON_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(source));
  if (directory.nbytes > kMaxDirectoryBytes || directory.count > directory.nbytes / kCentralBytes) {
    return Damaged(source, "its directory claims more than it can hold");
  }
  std::string bytes(directory.nbytes, '\0');
  ECHELON_RETURN_IF_ERROR(source.Read(directory.offset, directory.nbytes, bytes.data()));
  std::string_view rest = bytes;
  std::vector<Record> records;
  for (uint64_t i = 0; i < directory.count; ++i) {
    ECHELON_ASSIGN_OR_RETURN(Record record, TakeRecord(source, &rest));
    ECHELON_RETURN_IF_ERROR(PlaceData(source, directory.offset, &record));
    records.push_back(std::move(record));
  }
  ECHELON_RETURN_IF_ERROR(CheckNoOverlap(source, records));
  Zip zip;
  for (Record& record : records) {
    if (!zip.by_name_.emplace(record.entry.name, zip.entries_.size()).second) {
      return Damaged(source, absl::StrCat("two entries are named ", Quoted(record.entry.name)));
    }
    zip.entries_.push_back(std::move(record.entry));
  }
  return zip;
}

const ZipEntry* Zip::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

}  // namespace echelon::graph
