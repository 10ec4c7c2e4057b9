// The server's API, as far as this page needs it.

export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(key) {
  const all = {"content-type": "application/json"};
  if (key) all.authorization = "Bearer " + key;
  return all;
}

async function refused(response) {
  let message = response.statusText || "HTTP " + response.status;
  try {
    message = (await response.json()).error.message;
  } catch {
    // No error of the API's own: the status says enough.
  }
  return new HttpError(response.status, message);
}

// {id, max_model_len} of the model that is served.
export async function servedModel(key) {
  const response = await fetch("/v1/models", {headers: headers(key)});
  if (!response.ok) throw await refused(response);
  return (await response.json()).data[0];
}

// Asks and calls take(chunk) for every event until the answer has ended. Throws HttpError, or what
// fetch throws: AbortError where `signal` says stop.
export async function streamChat(request, key, signal, take) {
  const response = await fetch("/v1/chat/completions", {method: "POST", headers: headers(key),
    body: JSON.stringify({...request, stream: true, stream_options: {include_usage: true}}),
    signal});
  if (!response.ok) throw await refused(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error("the answer broke off: the connection ended");
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      take(chunk);
    }
  }
}
