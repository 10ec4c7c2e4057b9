#include "app/calibration.h"

#include <algorithm>
#include <memory>

#include "app/evaluation.h"
#include "app/options.h"
#include "app/progress.h"
#include "app/units.h"
#include "engine/calibration.h"

namespace qnext::app {

Importance calibrate(const ModelFiles& files, const std::string& text_file, bool with_mtp,
                     int threads) {
  const TokenizedText text =
      tokenize_text(text_file, read_text_file(text_file), load_tokenizer(files));
  MachineOptions machine;
  machine.device = "cpu";  // which shows what its matrices read
  machine.threads = threads;
  const auto backend = load_backend(files, machine, with_mtp);
  ProgressBar bar("calibrating", count_text);
  engine::CalibrationOptions options;
  options.context = default_window(files.config);
  options.progress = [&](int64_t done, int64_t total) {
    bar.update(static_cast<size_t>(done), static_cast<size_t>(total));
  };
  return engine::collect_importance(*backend, text.tokens, options);
}

}  // namespace qnext::app
