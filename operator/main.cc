// echelon-operator: keeps the pods of PipelineDeployments as they are wanted.
#include <cstdio>
#include <cstring>

#include "operator/commands.h"
#include "runtime/version.h"

namespace {

constexpr char kHelp[] =
    "echelon-operator makes PipelineDeployments of a Kubernetes cluster serve.\n"
    "\n"
    "  echelon-operator run             watch the cluster and act, as one of several replicas\n"
    "  echelon-operator plan -f FILE    print what would be done for the objects of a file\n"
    "  echelon-operator version\n"
    "\n"
    "echelon-operator COMMAND --help tells its flags.\n"
    "\n"
    "Example:\n"
    "  kubectl apply --server-side -f crds/\n"
    "  echelon-operator plan -f examples/net.yaml\n"
    "  echelon-operator run --kubeconfig ~/.kube/config --runtime-image "
    "localhost/echelon-runtime\n";

}  // namespace

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "--help";
  if (std::strcmp(command, "run") == 0) return echelon::op::RunMain(argc - 1, argv + 1);
  if (std::strcmp(command, "plan") == 0) return echelon::op::PlanMain(argc - 1, argv + 1);
  if (std::strcmp(command, "version") == 0 || std::strcmp(command, "--version") == 0) {
    return std::printf("echelon-operator %s\n", echelon::kVersion), 0;
  }
  if (std::strcmp(command, "--help") == 0 || std::strcmp(command, "-h") == 0 ||
      std::strcmp(command, "help") == 0) {
    std::fputs(kHelp, stdout);
    return argc > 1 ? 0 : 2;
  }
  std::fprintf(stderr,
               "echelon-operator: no command '%s'; there are run, plan and version "
               "(echelon-operator --help)\n",
               command);
  return 2;
}
