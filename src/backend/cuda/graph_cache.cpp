#include "backend/cuda/graph_cache.h"

#include "base/cuda_error.h"

namespace qnext::backend::cuda {

void GraphCache::clear() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

void GraphCache::begin(const Stream& stream) {
  check_cuda(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
             "capturing a graph");
}

void GraphCache::abandon(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream.get(), &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
}

cudaGraphExec_t GraphCache::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(stream.get(), &graph), "capturing a graph");
  cudaGraphExec_t made = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(code, "making a graph");
  if (graphs_.size() >= most_graphs) {
    stream.wait();
    clear();
  }
  return made;
}

void GraphCache::launch(const Stream& stream, cudaGraphExec_t graph) {
  check_cuda(cudaGraphLaunch(graph, stream.get()), "launching a graph");
}

}  // namespace qnext::backend::cuda
