// A process that the Python tests talk to: a JSON request a line in, a JSON answer a line out.
//   {"dir": DIR}                                       -> {"vocab_size": n}      the model from now
//   on
//   {"encode": TEXT, "special": b, "parse": b}         -> {"ids": [...]}
//   {"decode": [...], "skip": b}                       -> {"text": TEXT}
//   {"stream": [...], "skip": b}                       -> {"pieces": [...]}      the flush comes
//   last
//   {"messages": JSON, "tools": JSON, "generate": b}   -> {"text": TEXT}
// or {"error": MESSAGE}.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/graph/status_macros.h"
#include "runtime/text/chat_template.h"
#include "runtime/text/decode_stream.h"
#include "runtime/text/tokenizer.h"

namespace echelon {
namespace {

using Json = nlohmann::json;

class Probe {
 public:
  absl::StatusOr<Json> Answer(const Json& request) {
    if (request.contains("dir")) {
      directory_ = request["dir"].get<std::string>();
      ECHELON_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Load(directory_));
      return Json{{"vocab_size", tokenizer_->vocab_size()}};
    }
    if (request.contains("encode")) {
      ECHELON_ASSIGN_OR_RETURN(
          std::vector<int64_t> ids,
          tokenizer_->Encode(request["encode"].get<std::string>(),
                             {request["special"].get<bool>(), request["parse"].get<bool>()}));
      return Json{{"ids", ids}};
    }
    if (request.contains("decode")) {
      ECHELON_ASSIGN_OR_RETURN(std::string text,
                               tokenizer_->Decode(request["decode"].get<std::vector<int64_t>>(),
                                                  request["skip"].get<bool>()));
      return Json{{"text", text}};
    }
    if (request.contains("stream")) {
      return Stream(request["stream"].get<std::vector<int64_t>>(), request["skip"].get<bool>());
    }
    ECHELON_ASSIGN_OR_RETURN(auto chat_template, ChatTemplate::Load(directory_));
    ECHELON_ASSIGN_OR_RETURN(
        std::string text,
        chat_template->Render({.messages_json = request["messages"].get<std::string>(),
                               .tools_json = request["tools"].get<std::string>(),
                               .add_generation_prompt = request["generate"].get<bool>()}));
    return Json{{"text", text}};
  }

 private:
  absl::StatusOr<Json> Stream(const std::vector<int64_t>& ids, bool skip) {
    DecodeStream stream(tokenizer_, skip);
    Json pieces = Json::array();
    for (int64_t id : ids) {
      ECHELON_ASSIGN_OR_RETURN(std::string piece, stream.Append({id}));
      pieces.push_back(piece);
    }
    ECHELON_ASSIGN_OR_RETURN(std::string last, stream.Flush());
    pieces.push_back(last);
    return Json{{"pieces", pieces}};
  }

  std::string directory_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace
}  // namespace echelon

int main() {
  echelon::Probe probe;
  for (std::string line; std::getline(std::cin, line);) {
    auto answer = probe.Answer(nlohmann::json::parse(line));
    std::cout << (answer.ok() ? *answer
                              : nlohmann::json{{"error", std::string(answer.status().message())}})
              << std::endl;
  }
}
