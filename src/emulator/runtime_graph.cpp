#include "emulator/runtime_graph.h"

#include <map>
#include <memory>
#include <utility>

#include "emulator/runtime_state.h"

namespace qnext::emulator {
namespace {

// What can be launched shares its works with the graph it was made of.
struct Graphs {
  std::map<cudaGraph_t, std::shared_ptr<const Graph>> made;
  std::map<cudaGraphExec_t, std::shared_ptr<const Graph>> ready;
  uint64_t handles = 0;
};

Graphs& graphs() {
  static Graphs& all = *new Graphs;
  return all;
}

template <typename Handle>
Handle new_handle() {
  return reinterpret_cast<Handle>(++graphs().handles << 4);
}

cudaError_t instantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long flags) {
  if (!ready) return cudaErrorInvalidValue;
  *ready = nullptr;
  if (flags != 0) return cudaErrorNotSupported;
  const auto found = graphs().made.find(graph);
  if (found == graphs().made.end()) return cudaErrorInvalidValue;
  *ready = new_handle<cudaGraphExec_t>();
  graphs().ready[*ready] = found->second;
  return cudaSuccess;
}

cudaError_t launch(cudaGraphExec_t ready, cudaStream_t stream) {
  const auto found = graphs().ready.find(ready);
  if (found == graphs().ready.end()) return cudaErrorInvalidValue;
  return enqueue(stream, [graph = found->second] { return graph->run(); });
}

}  // namespace

cudaGraph_t make_graph(Graph graph) {
  const auto handle = new_handle<cudaGraph_t>();
  graphs().made[handle] = std::make_shared<const Graph>(std::move(graph));
  return handle;
}

}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph,
                                 unsigned long long flags) {
  return call([&] { return instantiate(ready, graph, flags); });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
  return call([&] { return launch(ready, stream); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return release_call(
      [&] { return graphs().made.erase(graph) == 1 ? cudaSuccess : cudaErrorInvalidValue; });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) {
  return release_call(
      [&] { return graphs().ready.erase(ready) == 1 ? cudaSuccess : cudaErrorInvalidValue; });
}

}  // extern "C"
