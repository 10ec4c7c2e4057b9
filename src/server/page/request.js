// A chat request from the settings and the messages above an answer.

// [field, label, least, most, step, help]
export const samplingFields = [
  ["temperature", "Temperature", 0, 2, 0.05, "0 takes the likeliest token"],
  ["top_p", "Top p", 0.01, 1, 0.01, "the likeliest tokens that make up this share"],
  ["top_k", "Top k", 0, 1000, 1, "the k likeliest tokens; 0: all"],
  ["min_p", "Min p", 0, 1, 0.01, "least share of the likeliest token's probability"],
  ["presence_penalty", "Presence penalty", -2, 2, 0.1, "above 0: fewer repetitions"],
  ["max_tokens", "Most tokens", 1, 1000000, 1, "of an answer"],
  ["seed", "Seed", 0, 4294967295, 1, "the same seed gives the same answer"],
];

export function parseTools(text) {
  if (!text.trim()) return [];
  const tools = JSON.parse(text);
  if (!Array.isArray(tools)) throw new Error("tools are a JSON list");
  // The bare functions that many write are taken too.
  return tools.map((tool) => tool.type ? tool : {type: "function", function: tool});
}

function asMessage(node) {
  if (node.role === "tool")
    return {role: "tool", tool_call_id: node.call, content: node.content};
  const message = {role: node.role, content: node.content};
  if (node.calls?.length > 0)
    message.tool_calls = node.calls.map((call) => ({id: call.id, type: "function",
      function: {name: call.name, arguments: call.arguments}}));
  return message;
}

export function chatRequest(settings, nodes) {
  const request = {messages: nodes.map(asMessage)};
  if (settings.system.trim())
    request.messages.unshift({role: "system", content: settings.system});
  for (const [field] of samplingFields)
    if (settings[field] !== "" && Number.isFinite(Number(settings[field])))
      request[field] = Number(settings[field]);
  const tools = parseTools(settings.tools);
  if (tools.length > 0) request.tools = tools;
  if (settings.thinking !== "")
    request.chat_template_kwargs = {enable_thinking: settings.thinking === "on"};
  return request;
}

// What an answer's chunks say, gathered in its node; returns whether there was text.
export function takeChunk(node, chunk) {
  if (chunk.usage) node.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return false;
  if (choice.finish_reason) node.finish = choice.finish_reason;
  const delta = choice.delta || {};
  if (delta.content) node.content += delta.content;
  if (delta.reasoning_content) node.reasoning = (node.reasoning || "") + delta.reasoning_content;
  for (const part of delta.tool_calls || []) {
    node.calls ||= [];
    const call = node.calls[part.index] ||= {id: "", name: "", arguments: ""};
    if (part.id) call.id = part.id;
    call.name += part.function?.name || "";
    call.arguments += part.function?.arguments || "";
  }
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls);
}

// The line below an answer. `times`: {begin, first, last} in milliseconds, `pieces` of text.
export function measured(node, times, pieces) {
  const usage = node.usage || {};
  const tokens = usage.completion_tokens ?? pieces;
  const stats = {tokens};
  if (times.first) stats.first = times.first - times.begin;
  const seconds = (times.last - times.first) / 1000;
  if (tokens > 1 && seconds > 0) stats.rate = (tokens - 1) / seconds;
  if (usage.prompt_tokens !== undefined) {
    stats.prompt = usage.prompt_tokens;
    stats.cached = usage.prompt_tokens_details?.cached_tokens;
  }
  const details = usage.completion_tokens_details || {};
  const accepted = details.accepted_prediction_tokens || 0;
  const drafted = accepted + (details.rejected_prediction_tokens || 0);
  if (drafted > 0) stats.acceptance = accepted / drafted;
  return stats;
}

export function statsText(stats) {
  const parts = [`${stats.tokens} token${stats.tokens === 1 ? "" : "s"}`];
  if (stats.rate)
    parts.push(`${stats.rate < 100 ? stats.rate.toFixed(1) : Math.round(stats.rate)} tokens/s`);
  if (stats.first !== undefined)
    parts.push(stats.first < 1000 ? `first after ${Math.round(stats.first)} ms`
      : `first after ${(stats.first / 1000).toFixed(1)} s`);
  if (stats.cached !== undefined)
    parts.push(`${stats.cached} of ${stats.prompt} prompt tokens cached`);
  if (stats.acceptance !== undefined)
    parts.push(`${Math.round(100 * stats.acceptance)} % of drafts accepted`);
  return parts.join(" · ");
}
