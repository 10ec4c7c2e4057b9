#include "app/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "app/units.h"
#include "base/json.h"

namespace qnext::app {
namespace {

std::string named_line(const char* name, const std::string& value) {
  return fmt::format("{:<16}{}\n", name, value);
}

template <typename... Cells>
std::string table_row(const Cells&... cells) {
  return fmt::format("{:<8}{:>6}{:>10}{:>12}{:>13}{:>12}{:>13}{:>12}{:>8}", cells...);
}

std::string line_text(const BenchSetting& setting, const BenchLine& line) {
  const auto rate = [&](double Measurement::*field) { return rate_text(line.median(field)); };
  const std::string first = seconds_text(line.median(&Measurement::first_token));
  const std::string context = grouped_text(line.point.context);
  if (line.point.generate == 0)
    return table_row(line.point.what(), line.point.batch, context, rate(&Measurement::prefill),
                     first, "", "", "", "") +
           "\n";
  std::string out = table_row(
      line.point.what(), line.point.batch, context, rate(&Measurement::prefill), first,
      rate(&Measurement::decode), bytes_text(line.median(&Measurement::bytes_per_token)),
      rate_text(line.roofline()), fmt::format("{:.1f} %", 100 * line.median(&Measurement::share)));
  if (setting.speculation)
    out += fmt::format("{:>13.2f}", line.median(&Measurement::tokens_per_step));
  return out + "\n";
}

std::string profile_text(const BenchPoint& point, const StageTable& table) {
  const double seconds = table.seconds();
  const auto steps = static_cast<double>(table.steps);
  std::string out =
      fmt::format("\n{} of {} x {} tokens: {} steps, {:.1f} microseconds each\n", table.what,
                  point.batch, grouped_text(point.context), table.steps, 1e6 * seconds / steps);
  out += fmt::format("  {:<32}{:>16}{:>9}{:>14}\n", "stage", "us a step", "share", "times a step");
  for (const backend::StageTime& stage : table.stages)
    out += fmt::format("  {:<32}{:>16.1f}{:>7.1f} %{:>14.4g}\n", stage.name,
                       1e6 * stage.seconds / steps, seconds > 0 ? 100 * stage.seconds / seconds : 0,
                       static_cast<double>(stage.count) / steps);
  return out;
}

json::Object profile_json(const StageTable& table) {
  json::Array stages;
  for (const backend::StageTime& stage : table.stages)
    stages.emplace_back(json::Object{{"name", stage.name},
                                     {"seconds", stage.seconds},
                                     {"share", stage.seconds / table.seconds()},
                                     {"count", stage.count}});
  return {{"what", table.what}, {"steps", table.steps}, {"stages", std::move(stages)}};
}

json::Object line_json(const BenchLine& line) {
  const bool decodes = line.point.generate > 0;
  const auto decoded = [&](double value) { return decodes ? json::Value(value) : json::Value(); };
  const auto figures = [&](const auto& figure) {
    return json::Object{{"read_bandwidth_bytes_per_second", figure(&Measurement::bandwidth)},
                        {"prefill_tokens_per_second", figure(&Measurement::prefill)},
                        {"first_token_seconds", figure(&Measurement::first_token)},
                        {"decode_tokens_per_second", decoded(figure(&Measurement::decode))},
                        {"bytes_per_token", decoded(figure(&Measurement::bytes_per_token))},
                        {"tokens_per_step", decoded(figure(&Measurement::tokens_per_step))},
                        {"roofline_share", decoded(figure(&Measurement::share))}};
  };
  json::Object out = {{"what", line.point.what()},
                      {"batch", line.point.batch},
                      {"context", line.point.context},
                      {"generated_tokens", line.point.generate}};
  const json::Object medians =
      figures([&](double Measurement::*field) { return line.median(field); });
  for (const auto& [name, value] : medians) out.set(name, value);
  out.set("roofline_tokens_per_second", decoded(line.roofline()));
  json::Array repeats;
  for (const Measurement& one : line.repeats)
    repeats.emplace_back(figures([&](double Measurement::*field) { return one.*field; }));
  out.set("repeats", std::move(repeats));
  json::Array profile;
  for (const StageTable& table : line.profile) profile.emplace_back(profile_json(table));
  if (!line.profile.empty()) out.set("profile", std::move(profile));
  return out;
}

}  // namespace

std::string bench_text(const BenchSetting& setting, const BenchReport& report) {
  const backend::Capabilities& capabilities = setting.capabilities;
  std::string out = named_line("device", capabilities.device);
  out +=
      named_line("weights", fmt::format("{} {}, ready in {}",
                                        bytes_text(static_cast<double>(capabilities.weight_bytes)),
                                        setting.weights, seconds_text(setting.load_seconds)));
  out += named_line("read bandwidth",
                    bytes_text(report.lines.front().median(&Measurement::bandwidth)) +
                        "/s, measured in turn with what follows");
  out += named_line("memory",
                    bytes_text(static_cast<double>(report.resident_bytes)) + " of this process");
  out += named_line("medians of", fmt::format("{} repeats", setting.repeat));
  out += "\n" + table_row("what", "batch", "context", "prefill/s", "first token", "decode/s",
                          "read a token", "roofline/s", "share");
  out += setting.speculation ? "  tokens/step\n" : "\n";
  for (const BenchLine& line : report.lines) out += line_text(setting, line);
  if (std::ranges::any_of(report.lines, &BenchLine::shortened))
    out += "contexts are shortened where the model's limit left no room for the answers\n";
  for (const BenchLine& line : report.lines) {
    for (const StageTable& table : line.profile) out += profile_text(line.point, table);
  }
  if (setting.profile && !report.has_profile)
    out += "\nno profile: this backend does not measure its stages\n";
  return out;
}

std::string bench_json(const BenchSetting& setting, const BenchReport& report) {
  json::Array measurements;
  for (const BenchLine& line : report.lines) measurements.emplace_back(line_json(line));
  const json::Object out = {
      {"device", setting.capabilities.device},
      {"weights", setting.weights},
      {"weight_bytes", static_cast<int64_t>(setting.capabilities.weight_bytes)},
      {"load_seconds", setting.load_seconds},
      {"resident_bytes", static_cast<int64_t>(report.resident_bytes)},
      {"measurements", std::move(measurements)},
  };
  return json::write(out, 2) + "\n";
}

}  // namespace qnext::app
