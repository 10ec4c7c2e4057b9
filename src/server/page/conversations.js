// Conversations as trees, kept in this browser. A message that is edited or made again becomes a
// branch beside the one before: nothing that was said is lost.
//
// conversation: {id, title, changed, settings, nodes: {id: node}}; the node "root" has no message.
// node: {id, parent, children: [id], chosen: index of the child that is shown, role, content,
//   reasoning, calls: [{id, name, arguments}], call (a tool's answer: to which), stats, problem}

const PREFIX = "qnext.conversation.";

export const defaultSettings = {system: "", temperature: "", top_p: "", top_k: "", min_p: "",
  presence_penalty: "", max_tokens: "", seed: "", thinking: "", tools: ""};

function newId() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
}

export function newConversation(settings = {}) {
  return {id: newId(), title: "New conversation", changed: Date.now(),
    settings: {...defaultSettings, ...settings},
    nodes: {root: {id: "root", parent: null, children: [], chosen: 0, role: "root"}}};
}

export function addNode(conversation, parent, fields) {
  const node = {id: newId(), parent, children: [], chosen: 0, content: "", ...fields};
  conversation.nodes[node.id] = node;
  const above = conversation.nodes[parent];
  above.children.push(node.id);
  above.chosen = above.children.length - 1;
  conversation.changed = Date.now();
  return node;
}

// The messages that are shown, from the first on.
export function branch(conversation) {
  const nodes = [];
  let node = conversation.nodes.root;
  while (node && node.children.length > 0) {
    node = conversation.nodes[node.children[node.chosen]];
    if (node) nodes.push(node);
  }
  return nodes;
}

// Those above a node, itself left out.
export function above(conversation, node) {
  const nodes = [];
  for (let at = conversation.nodes[node.parent]; at && at.id !== "root";
    at = conversation.nodes[at.parent])
    nodes.unshift(at);
  return nodes;
}

export function save(conversation) {
  localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
}

export function remove(conversation) {
  localStorage.removeItem(PREFIX + conversation.id);
}

function isWhole(conversation) {
  return conversation && conversation.nodes?.root && typeof conversation.id === "string";
}

// All that are kept, the one that changed last first.
export function loadAll() {
  const all = [];
  for (let i = 0; i < localStorage.length; ++i) {
    const key = localStorage.key(i);
    if (!key.startsWith(PREFIX)) continue;
    try {
      const conversation = JSON.parse(localStorage.getItem(key));
      if (isWhole(conversation)) all.push(conversation);
    } catch {
      // Something else's, or half written: left alone.
    }
  }
  return all.sort((a, b) => b.changed - a.changed);
}

// A title from what was asked first.
export function entitle(conversation) {
  const first = branch(conversation).find((node) => node.role === "user");
  if (!first) return;
  const line = first.content.trim().split("\n")[0];
  conversation.title = line.length > 60 ? line.slice(0, 57) + "…" : line || "New conversation";
}

// The branch that is shown as Markdown.
export function asMarkdown(conversation) {
  const names = {user: "You", assistant: "Answer", tool: "Tool"};
  const parts = ["# " + conversation.title];
  if (conversation.settings.system) parts.push("## System\n\n" + conversation.settings.system);
  for (const node of branch(conversation)) {
    parts.push("## " + names[node.role]);
    if (node.content) parts.push(node.content);
    for (const call of node.calls || [])
      parts.push("```json\n" + JSON.stringify({name: call.name, arguments: call.arguments}) +
        "\n```");
  }
  return parts.join("\n\n") + "\n";
}
