// The subcommands of echelon. Each takes its own arguments (argv[0] is the subcommand's name) and
// returns the process's exit status: 0, 1 after one line on stderr, or 2 for wrong usage.
#ifndef ECHELON_RUNTIME_CLI_COMMANDS_H_
#define ECHELON_RUNTIME_CLI_COMMANDS_H_

namespace echelon {

int RunMain(int argc, char** argv);
int PlanMain(int argc, char** argv);
int GenerateMain(int argc, char** argv);

}  // namespace echelon

#endif  // ECHELON_RUNTIME_CLI_COMMANDS_H_
