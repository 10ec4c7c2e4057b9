// Streams, events, and the capture of streams into a graph.
//
// A capture begins in one stream, its origin. Another takes part once it waits for an event of one
// that does. In the end the origin must have waited for all that the others have recorded: each
// stream and event therefore knows how many works of each stream come before it.
#include "emulator/runtime_streams.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "emulator/runtime_graph.h"
#include "emulator/runtime_overlap.h"
#include "emulator/runtime_state.h"

namespace qnext::emulator {
namespace {

struct Stream;
using Known = std::map<const Stream*, size_t>;  // works of each stream that come before

struct Capture {
  const Stream* origin = nullptr;
  cudaStreamCaptureMode mode{};
  std::thread::id thread;
  bool broken = false;
  bool ended = false;
  Graph graph;
  Known recorded;
};

struct Stream {
  bool blocking = true;  // waits for the legacy stream, and the other way round
  std::shared_ptr<Capture> capture;
  Known known;
};

struct Event {
  bool timed = true;
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<Capture> capture;  // where it was last recorded, if in one
  Known known;
};

struct Streams {
  Stream legacy, of_threads;
  std::map<cudaStream_t, std::unique_ptr<Stream>> made;
  std::map<cudaEvent_t, std::unique_ptr<Event>> events;
  std::set<Stream*> capturing;
};

Streams& streams() {
  static Streams& all = *new Streams;
  return all;
}

Stream* find(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &streams().legacy;
  if (stream == cudaStreamPerThread) return &streams().of_threads;
  const auto found = streams().made.find(stream);
  return found == streams().made.end() ? nullptr : found->second.get();
}

Event* find(cudaEvent_t event) {
  const auto found = streams().events.find(event);
  return found == streams().events.end() ? nullptr : found->second.get();
}

void join(Stream& stream, const std::shared_ptr<Capture>& capture) {
  stream.capture = capture;
  stream.known.clear();
  streams().capturing.insert(&stream);
}

void end(const std::shared_ptr<Capture>& capture) {
  capture->ended = true;
  for (auto at = streams().capturing.begin(); at != streams().capturing.end();) {
    Stream& stream = **at;
    if (stream.capture == capture) {
      stream.capture.reset();
      stream.known.clear();
      at = streams().capturing.erase(at);
    } else {
      ++at;
    }
  }
}

cudaError_t break_capture(Capture& capture, cudaError_t code) {
  capture.broken = true;
  return code;
}

// What the legacy stream does would come after all blocking streams' works.
cudaError_t check_legacy(const Stream& stream) {
  if (&stream != &streams().legacy) return cudaSuccess;
  for (const Stream* other : streams().capturing)
    if (other->blocking) return break_capture(*other->capture, cudaErrorStreamCaptureImplicit);
  return cudaSuccess;
}

bool knows_all(const Stream& stream, const Known& recorded) {
  for (const auto& [other, count] : recorded) {
    const auto known = stream.known.find(other);
    if (other != &stream && (known == stream.known.end() || known->second < count)) return false;
  }
  return true;
}

cudaError_t begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Stream* stream = find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (mode != cudaStreamCaptureModeGlobal && mode != cudaStreamCaptureModeThreadLocal &&
      mode != cudaStreamCaptureModeRelaxed)
    return cudaErrorInvalidValue;
  if (stream == &streams().legacy) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture) return break_capture(*stream->capture, cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  join(*stream, capture);
  return cudaSuccess;
}

cudaError_t end_capture(cudaStream_t handle, cudaGraph_t* graph) {
  Stream* stream = find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!graph) return cudaErrorInvalidValue;
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return cudaErrorIllegalState;
  if (capture->origin != stream) return break_capture(*capture, cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  const bool joined = knows_all(*stream, capture->recorded);
  end(capture);
  if (capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  *graph = make_graph(std::move(capture->graph));
  return cudaSuccess;
}

cudaError_t record(cudaEvent_t event_handle, cudaStream_t stream_handle) {
  Event* event = find(event_handle);
  Stream* stream = find(stream_handle);
  if (!event || !stream) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = check_legacy(*stream); code != cudaSuccess) return code;
  if (stream->capture && stream->capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (!stream->capture)
    if (const cudaError_t code = finish_launches(); code != cudaSuccess) return code;
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  event->capture = stream->capture;
  event->known = stream->known;
  return cudaSuccess;
}

cudaError_t wait_event(cudaStream_t stream_handle, cudaEvent_t event_handle) {
  Stream* stream = find(stream_handle);
  const Event* event = find(event_handle);
  if (!event || !stream) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = check_legacy(*stream); code != cudaSuccess) return code;
  if (!event->capture) {
    if (stream->capture && event->recorded)
      return break_capture(*stream->capture, cudaErrorStreamCaptureIsolation);
    return stream->capture ? cudaSuccess : finish_launches();
  }
  // An event of a capture that has ended names works that are in no stream.
  if (event->capture->ended) return cudaErrorCapturedEvent;
  if (event->capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (stream == &streams().legacy)
    return break_capture(*event->capture, cudaErrorStreamCaptureImplicit);
  if (stream->capture && stream->capture != event->capture)
    return break_capture(*stream->capture, cudaErrorStreamCaptureMerge);
  if (!stream->capture) join(*stream, event->capture);
  for (const auto& [other, count] : event->known)
    stream->known[other] = std::max(stream->known[other], count);
  // What comes next waits for several, so for the end of each.
  stream->capture->graph.works.push_back(finish_launches);
  return cudaSuccess;
}

cudaError_t make_stream(cudaStream_t* handle, unsigned flags) {
  if (!handle || (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)))
    return cudaErrorInvalidValue;
  auto stream = std::make_unique<Stream>();
  stream->blocking = flags != cudaStreamNonBlocking;
  *handle = reinterpret_cast<cudaStream_t>(stream.get());
  streams().made[*handle] = std::move(stream);
  return cudaSuccess;
}

cudaError_t make_event(cudaEvent_t* handle, unsigned flags) {
  if (!handle) return cudaErrorInvalidValue;
  if (flags & ~static_cast<unsigned>(cudaEventDisableTiming | cudaEventBlockingSync))
    return cudaErrorNotSupported;
  auto event = std::make_unique<Event>();
  event->timed = !(flags & cudaEventDisableTiming);
  *handle = reinterpret_cast<cudaEvent_t>(event.get());
  streams().events[*handle] = std::move(event);
  return cudaSuccess;
}

}  // namespace

cudaError_t Graph::run() const {
  if (const cudaError_t code = finish_launches(); code != cudaSuccess) return code;
  for (const Work& work : works)
    if (const cudaError_t code = work(); code != cudaSuccess) return code;
  return finish_launches();
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  Stream* stream = find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t code = check_legacy(*stream); code != cudaSuccess) return code;
  if (!stream->capture) return work();
  Capture& capture = *stream->capture;
  if (capture.broken) return cudaErrorStreamCaptureInvalidated;
  capture.graph.works.push_back(std::move(work));
  stream->known[stream] = ++capture.recorded[stream];
  return cudaSuccess;
}

cudaError_t refuse_in_capture() {
  for (const Stream* stream : streams().capturing) {
    Capture& capture = *stream->capture;
    if (capture.mode == cudaStreamCaptureModeGlobal ||
        (capture.mode == cudaStreamCaptureModeThreadLocal &&
         capture.thread == std::this_thread::get_id()))
      return break_capture(capture, cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return call([&] { return make_stream(stream, cudaStreamDefault); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call([&] { return make_stream(stream, flags); });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return release_call([&] {
    Stream* found = find(stream);
    if (!found || !streams().made.contains(stream)) return cudaErrorInvalidResourceHandle;
    if (found->capture) return break_capture(*found->capture, cudaErrorStreamCaptureUnsupported);
    finish_launches();
    streams().made.erase(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call([&] {
    Stream* found = find(stream);
    if (!found) return cudaErrorInvalidResourceHandle;
    if (found->capture) return break_capture(*found->capture, cudaErrorStreamCaptureUnsupported);
    const cudaError_t code = check_legacy(*found);
    return code != cudaSuccess ? code : finish_launches();
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call([] {
    const cudaError_t code = refuse_in_capture();
    return code != cudaSuccess ? code : finish_launches();
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call([&] { return flags != 0 ? cudaErrorNotSupported : wait_event(stream, event); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&] { return begin_capture(stream, mode); });
}

// Also after a fault, so that the stream can be destroyed.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return release_call([&] { return end_capture(stream, graph); });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call([&] { return make_event(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&] { return make_event(event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return release_call([&] {
    return streams().events.erase(event) == 1 ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&] { return record(event, stream); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&] {
    const Event* found = find(event);
    if (!found) return cudaErrorInvalidResourceHandle;
    return found->capture ? cudaErrorCapturedEvent : finish_launches();
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  return call([&] {
    const Event* from = find(start);
    const Event* to = find(stop);
    if (!milliseconds) return cudaErrorInvalidValue;
    if (!from || !to || !from->timed || !to->timed || !from->recorded || !to->recorded)
      return cudaErrorInvalidResourceHandle;
    if (from->capture || to->capture) return cudaErrorCapturedEvent;
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
