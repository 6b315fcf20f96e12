// What echelon-operator does, a function a subcommand. argv[0] is the subcommand's name.
#ifndef ECHELON_OPERATOR_COMMANDS_H_
#define ECHELON_OPERATOR_COMMANDS_H_

namespace echelon::op {

int RunMain(int argc, char** argv);
int PlanMain(int argc, char** argv);

}  // namespace echelon::op

#endif  // ECHELON_OPERATOR_COMMANDS_H_
