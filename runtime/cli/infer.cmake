# `echelon infer` speaks only gRPC: no LibTorch.
add_library(echelon_cli_infer STATIC ${CMAKE_CURRENT_LIST_DIR}/infer.cc
            ${CMAKE_CURRENT_LIST_DIR}/infer_input.cc ${CMAKE_CURRENT_LIST_DIR}/npy.cc)
target_link_libraries(echelon_cli_infer PUBLIC echelon_serve_v2 echelon_tensor
                      PRIVATE CLI11::CLI11)
