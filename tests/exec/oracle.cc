#include "tests/exec/oracle.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/exec/convert.h"
#include "runtime/plan/load.h"
#include "runtime/weights/safetensors.h"
#include "runtime/weights/source.h"

namespace echelon::oracle {
namespace {

std::filesystem::path Folder() {
  const char* folder = std::getenv("ECHELON_ORACLE");
  return folder ? folder : ECHELON_ORACLE;
}

absl::StatusOr<Run> ReadRun(const std::string& path) {
  const auto header = weights::ReadSafetensorsHeader(path);
  if (!header.ok()) return header.status();
  const auto file = weights::LocalFiles();
  Run run;
  for (const auto& [name, entry] : *header) {
    Tensor tensor = Tensor::Empty(entry.dtype, entry.shape);
    const absl::Status read = file->Read(path, entry.offset, {tensor.data, tensor.nbytes});
    if (!read.ok()) return read;
    const std::pair<std::string, std::string> parts = absl::StrSplit(name, absl::MaxSplits('.', 1));
    (parts.first == "input" ? run.inputs : run.outputs)[parts.second] = tensor;
  }
  return run;
}

Tensor Copied(const Tensor& tensor) {
  Tensor copy = Tensor::Empty(tensor.dtype, tensor.shape);
  if (tensor.nbytes > 0) std::memcpy(copy.data, tensor.data, tensor.nbytes);
  return copy;
}

template <class T>
Tensor ScalarTensor(DType dtype, T number) {
  Tensor tensor = Tensor::Empty(dtype, {});
  std::memcpy(tensor.data, &number, sizeof number);
  return tensor;
}

std::string TypeOf(const Tensor& tensor) {
  return absl::StrCat(std::string(Name(tensor.dtype)), "[", ShapeText(tensor.shape), "]");
}

std::string TensorDifference(const Tensor& wanted, const Tensor& got, bool exact,
                             double tolerance) {
  if (wanted.dtype != got.dtype || wanted.shape != got.shape)
    return absl::StrCat(TypeOf(got), " where eager has ", TypeOf(wanted));
  const at::Tensor a = exec::ToTorch(wanted).contiguous(), b = exec::ToTorch(got).contiguous();
  if (wanted.nbytes == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), wanted.nbytes) == 0)
    return "";
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const auto* want = x.const_data_ptr<double>();
  const auto* have = y.const_data_ptr<double>();
  double worst = 0;
  int64_t wrong = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if ((std::isnan(want[i]) && std::isnan(have[i])) || want[i] == have[i]) continue;
    const double difference = std::abs(want[i] - have[i]);
    if (!exact && difference <= tolerance * (1 + std::abs(want[i]))) continue;
    ++wrong;
    worst = std::isnan(difference) ? difference : std::max(worst, difference);
  }
  if (wrong == 0) return "";
  return absl::StrCat(wrong, " of ", x.numel(), " elements differ, by up to ", worst);
}

}  // namespace

absl::StatusOr<Case> ReadCase(const std::string& name) {
  const std::filesystem::path folder = Folder() / name;
  std::ifstream file(folder / "case.json");
  if (!file) return absl::NotFoundError(absl::StrCat(folder.string(), ": no such case"));
  const auto about = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!about.is_object())
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), "/case.json: no JSON"));
  Case item{.name = name,
            .model = folder / "model.pt2",
            .exact = about["exact"],
            .stateful = about["stateful"],
            .chunkable = about["chunkable"],
            .tolerance = about["tolerance"]};
  for (int k = 0; k < about["runs"].get<int>(); ++k) {
    absl::StatusOr<Run> run = ReadRun(folder / absl::StrCat("run", k, ".safetensors"));
    if (!run.ok()) return run.status();
    item.runs.push_back(*std::move(run));
  }
  return item;
}

std::vector<Case> Cases() {
  std::vector<std::string> names;
  if (const char* chosen = std::getenv("ECHELON_CASES")) {
    names = absl::StrSplit(chosen, ',');
  } else {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(Folder(), error)) {
      const std::string name = entry.path().filename();
      if (name != "big" && std::filesystem::exists(entry.path() / "case.json"))
        names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  std::vector<Case> cases;
  for (const std::string& name : names) {
    absl::StatusOr<Case> item = ReadCase(name);
    if (item.ok())
      cases.push_back(*std::move(item));
    else
      ADD_FAILURE() << item.status().message();
  }
  if (cases.empty())
    ADD_FAILURE() << "no models under " << Folder()
                  << ": run tests/oracle/make_models.py, or set ECHELON_ORACLE";
  exec::SetThreads(1);  // as the answers were made: sums of several threads have another order
  return cases;
}

std::string Difference(const Tensors& wanted, const Tensors& got, bool exact, double tolerance) {
  for (const auto& [name, tensor] : wanted) {
    const auto found = got.find(name);
    if (found == got.end()) return absl::StrCat("output ", name, " is missing");
    const std::string difference = TensorDifference(tensor, found->second, exact, tolerance);
    if (!difference.empty()) return absl::StrCat("output ", name, ": ", difference);
  }
  return "";
}

link::Frame Feed(const graph::Graph& graph, const Tensors& inputs) {
  link::Frame frame{.epoch = 1};
  for (const graph::Input& input : graph.inputs) {
    const auto id = static_cast<uint32_t>(input.value);
    const auto found = inputs.find(input.name);
    if (found == inputs.end()) continue;  // the stage says what is missing
    if (graph.values[input.value].type == graph::ValueType::kTensor) {
      frame.tensors.push_back({id, Copied(found->second)});
    } else {
      int64_t number = 0;
      std::memcpy(&number, found->second.data, sizeof number);
      frame.scalars.push_back({id, number});
    }
  }
  return frame;
}

Tensors Outputs(const graph::Graph& graph, const link::Frame& frame) {
  Tensors outputs;
  for (const graph::Output& output : graph.outputs) {
    if (const auto* number = std::get_if<int64_t>(&output.item))
      outputs[output.name] = ScalarTensor(DType::kI64, *number);
    const auto* ref = std::get_if<graph::ValueRef>(&output.item);
    if (!ref) continue;
    const auto id = static_cast<uint32_t>(ref->id);
    for (const auto& value : frame.tensors)
      if (value.value == id) outputs[output.name] = value.tensor;
    for (const auto& value : frame.scalars) {
      if (value.value != id) continue;
      if (const auto* number = std::get_if<int64_t>(&value.scalar))
        outputs[output.name] = ScalarTensor(DType::kI64, *number);
      else if (const auto* real = std::get_if<double>(&value.scalar))
        outputs[output.name] = ScalarTensor(DType::kF64, *real);
      else
        outputs[output.name] = ScalarTensor(DType::kBool, std::get<bool>(value.scalar));
    }
  }
  return outputs;
}

absl::StatusOr<link::Frame> Cross(const link::Frame& frame) {
  std::string wire = link::Prologue(frame);
  for (const auto& value : frame.tensors)
    wire.append(reinterpret_cast<const char*>(value.tensor.data), value.tensor.nbytes);
  const auto bytes =
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(wire.data()), wire.size());
  const auto header = link::ParseHeader(bytes.first(link::kHeaderBytes), {});
  if (!header.ok()) return header.status();
  auto parsed = link::ParseDescriptors(
      *header, bytes.subspan(link::kHeaderBytes, header->descriptor_bytes), {});
  if (!parsed.ok()) return parsed.status();
  const std::byte* from = bytes.data() + link::kHeaderBytes + header->descriptor_bytes;
  for (auto& value : parsed->tensors) {
    const Tensor memory = Tensor::Empty(value.tensor.dtype, value.tensor.shape);
    if (memory.nbytes != value.tensor.nbytes)
      return absl::InternalError("a tensor's bytes are not its shape's");
    if (memory.nbytes > 0) std::memcpy(memory.data, from, memory.nbytes);
    from += memory.nbytes;
    value.tensor.data = memory.data;
    value.tensor.owner = memory.owner;
  }
  return parsed;
}

absl::StatusOr<Pipeline> Pipeline::Load(const graph::Graph& graph,
                                        const std::vector<plan::Stage>& stages,
                                        const exec::LoadOptions& options) {
  Pipeline pipeline(graph);
  const auto source = weights::LocalFiles();
  for (const plan::Stage& stage : stages) {
    auto module = exec::LoadStage(graph, stage, *source, options);
    if (!module.ok()) return module.status();
    pipeline.modules_.push_back(*std::move(module));
  }
  return pipeline;
}

absl::StatusOr<Tensors> Pipeline::Run(const Tensors& inputs, const std::string& rows) {
  link::Frame frame = Feed(*graph_, inputs);
  frame.rows = rows;
  for (const auto& module : modules_) {
    absl::StatusOr<link::Frame> received = Cross(frame);
    if (!received.ok()) return received.status();
    frame = *std::move(received);
    const absl::Status status = module->Run(frame);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<link::Frame> result = Cross(frame);
  if (!result.ok()) return result.status();
  return Outputs(*graph_, *result);
}

bool KeepsStrides(const graph::Graph& graph, const std::vector<plan::Stage>& stages) {
  const auto is_dense = [&](graph::ValueId id) {
    const graph::Value& value = graph.values[id];
    if (value.type != graph::ValueType::kTensor) return true;
    std::vector<std::pair<int64_t, int64_t>> dims;  // (stride, size), of those that have any
    for (size_t i = 0; i < value.shape.size(); ++i)
      if (value.shape[i].hint != 1) dims.emplace_back(value.strides[i].hint, value.shape[i].hint);
    std::sort(dims.begin(), dims.end());
    int64_t next = 1;
    for (const auto& [stride, size] : dims) {
      if (stride != next) return false;
      next *= size;
    }
    return true;
  };
  return std::all_of(stages.begin(), stages.end() - 1, [&](const plan::Stage& stage) {
    return std::all_of(stage.sends.begin(), stage.sends.end(), is_dense);
  });
}

std::vector<plan::Stage> StagesOf(const graph::Graph& graph, const std::vector<int>& bounds) {
  const plan::Load load(graph);
  const int count = static_cast<int>(bounds.size()) - 1;
  std::vector<plan::Stage> stages;
  stages.reserve(count);
  for (int s = 0; s < count; ++s)
    stages.push_back(plan::DescribeStage(graph, load, s, count, bounds[s], bounds[s + 1]));
  return stages;
}

std::string Check(const Case& item, const graph::Graph& graph,
                  const std::vector<plan::Stage>& stages, size_t runs) {
  absl::StatusOr<Pipeline> pipeline = Pipeline::Load(graph, stages);
  if (!pipeline.ok()) return std::string(pipeline.status().message());
  if (item.stateful) runs = item.runs.size();
  const bool exact = item.exact && KeepsStrides(graph, stages);
  for (size_t k = 0; k < std::min(runs, item.runs.size()); ++k) {
    const absl::StatusOr<Tensors> got = pipeline->Run(item.runs[k].inputs);
    const std::string wrong = got.ok()
                                  ? Difference(item.runs[k].outputs, *got, exact, item.tolerance)
                                  : std::string(got.status().message());
    if (!wrong.empty()) return absl::StrCat("run ", k, ": ", wrong);
  }
  return "";
}

}  // namespace echelon::oracle
