#ifndef ECHELON_RUNTIME_CLI_INFER_H_
#define ECHELON_RUNTIME_CLI_INFER_H_

namespace echelon {

// `echelon infer`: sends one request, or --repeat of them, to a v2 gRPC server and prints what
// comes back. Returns the exit status: 0, or 1 after one line on stderr.
int InferMain(int argc, char** argv);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_INFER_H_
