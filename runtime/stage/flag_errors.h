// What CLI11 says of a wrong flag, in words that name the flag or the environment variable, its
// value and what to do.
#ifndef ECHELON_RUNTIME_STAGE_FLAG_ERRORS_H_
#define ECHELON_RUNTIME_STAGE_FLAG_ERRORS_H_

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>
#include <string_view>

namespace echelon::stage {

inline std::string FlagError(const CLI::App& app, const CLI::ParseError& error) {
  std::string text = error.what();
  constexpr std::string_view kConvert = "Could not convert: ", kTwice = ": At Most 1 required";
  if (const size_t at = text.find(kTwice); at != std::string::npos)
    return text.substr(0, at) + " is given more than once; give it once";
  const size_t equals = text.find(" = ");
  if (text.rfind(kConvert, 0) != 0 || equals == std::string::npos) return text;
  const std::string name = text.substr(kConvert.size(), equals - kConvert.size());
  const std::string value = text.substr(equals + 3);
  const CLI::Option* const option = app.get_option_no_throw(name);
  const std::string variable = option == nullptr ? "" : option->get_envname();
  const char* const set = variable.empty() ? nullptr : std::getenv(variable.c_str());
  const bool from_environment = set != nullptr && value == set;
  return (from_environment ? variable : name) + "=" + value + " is no number; give one";
}

}  // namespace echelon::stage

#endif  // ECHELON_RUNTIME_STAGE_FLAG_ERRORS_H_
