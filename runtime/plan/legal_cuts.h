// Where a graph may be cut. A cut before node k is legal when no result changes although every
// value that crosses it is copied, dense, with the order of its strides kept:
// - a class of values that may share memory and is written at or after k does not cross under two
// names;
// - a written class that holds stored tensors (a mutable buffer) has all its readers and writers on
// one side;
// - nothing that reads a storage beyond its own elements (as_strided, strides as numbers) is parted
// from the storage;
// - no operator whose copying depends on strides (reshape, contiguous) lies between a cut and the
// write it might share. Stored tensors that nobody writes are loaded on each side that needs them.
// LegalCuts itself is declared in plan.h.
#ifndef ECHELON_RUNTIME_PLAN_LEGAL_CUTS_H_
#define ECHELON_RUNTIME_PLAN_LEGAL_CUTS_H_

#include <vector>

#include "runtime/graph/graph.h"

namespace echelon::plan {

// When a value lives, in node indices. Stored values live everywhere and never cross; nor do those
// that every stage makes for itself (recompute.h).
struct Span {
  static constexpr int kInput = -1, kStored = -2, kRecomputed = -3;
  int born = kInput;
  int last =
      -1;  // last node that uses it; the number of nodes for an output of the graph; -1: unused

  bool Crosses(int cut) const { return born >= kInput && born < cut && last >= cut; }
};

std::vector<Span> Spans(const graph::Graph& graph);  // one a value

}  // namespace echelon::plan

#endif  // ECHELON_RUNTIME_PLAN_LEGAL_CUTS_H_
