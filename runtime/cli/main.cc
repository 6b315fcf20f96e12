// echelon: one program, a subcommand a verb.
#include <cstdio>
#include <cstring>

#include "runtime/cli/commands.h"
#include "runtime/cli/infer.h"
#include "runtime/version.h"

namespace {

constexpr char kHelp[] =
    "echelon serves a model too big for one machine as a pipeline of stages.\n"
    "\n"
    "  echelon run MODEL --stages N    serve it on this machine, a process a stage\n"
    "  echelon run -f FILE             the same for a PipelineDeployment of Kubernetes\n"
    "  echelon plan MODEL --stages N   show how it would be split; reads no weights\n"
    "  echelon generate DIR PROMPT     write what a language model answers, over stages\n"
    "  echelon infer                   send a request to a server and print the answer\n"
    "\n"
    "MODEL is a .pt2 file, torch.export.save's or echelon-export's, or the directory DIR of a\n"
    "Hugging Face language model (config.json, safetensors, tokenizer.json).\n"
    "echelon COMMAND --help tells its flags and shows an example.\n"
    "\n"
    "Example:\n"
    "  echelon-export examples/net/net.py:net --input x=4x128:f32 -o net.pt2\n"
    "  echelon run net.pt2 --stages 2\n"
    "  echelon generate SmolLM2-135M-Instruct \"What is the capital of France?\" --stages 2\n";

}  // namespace

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "--help";
  if (std::strcmp(command, "run") == 0) return echelon::RunMain(argc - 1, argv + 1);
  if (std::strcmp(command, "plan") == 0) return echelon::PlanMain(argc - 1, argv + 1);
  if (std::strcmp(command, "generate") == 0) return echelon::GenerateMain(argc - 1, argv + 1);
  if (std::strcmp(command, "infer") == 0) return echelon::InferMain(argc - 1, argv + 1);
  if (std::strcmp(command, "--version") == 0)
    return std::printf("echelon %s\n", echelon::kVersion), 0;
  if (std::strcmp(command, "--help") == 0 || std::strcmp(command, "-h") == 0 ||
      std::strcmp(command, "help") == 0) {
    std::fputs(kHelp, stdout);
    return argc > 1 ? 0 : 2;
  }
  std::fprintf(
      stderr,
      "echelon: no command '%s'; there are run, plan, generate and infer (echelon --help)\n",
      command);
  return 2;
}
