// The page: which conversation is shown, what is being answered, and what the buttons do.

import * as store from "/page/conversations.js";
import {element, icon, iconButton, icons} from "/page/dom.js";
import {MessageView} from "/page/message.js";
import {chatRequest, measured, takeChunk} from "/page/request.js";
import {askForKey, editSettings} from "/page/settings.js";
import {HttpError, servedModel, streamChat} from "/page/stream.js";

const byId = (id) => document.getElementById(id);
const log = byId("log");
const composer = byId("composer");
const field = byId("message");
const sendButton = byId("send");
const status = byId("status");

const KEY = "qnext.key";
const THEME = "qnext.theme";
const LAST = "qnext.last";

let conversations = store.loadAll();
let current = conversations.find((one) => one.id === localStorage.getItem(LAST)) ||
  conversations[0] || store.newConversation();
let views = [];
let answering = null;  // {conversation, node, controller}: the answer under way

function say(text) {
  status.textContent = text;
}

function keep(conversation) {
  try {
    store.save(conversation);
    localStorage.setItem(LAST, conversation.id);
  } catch {
    say("This browser's storage is full: the conversation is kept until the page is closed.");
  }
  if (!conversations.includes(conversation)) conversations.unshift(conversation);
}

const actions = {
  again(node) {
    if (!answering) answer(node.parent);
  },
  edit(node, text) {
    if (answering) return;
    const edited = store.addNode(current, node.parent, {role: "user", content: text});
    answer(edited.id);
  },
  choose(node, index) {
    if (answering) return;
    current.nodes[node.parent].chosen = index;
    store.entitle(current);
    keep(current);
    showConversation();
  },
  toolResult(node, call, text) {
    if (answering) return;
    // Results of several calls follow each other.
    const last = store.branch(current).at(-1);
    const below = last.role === "tool" || last === node ? last : node;
    const result = store.addNode(current, below.id, {role: "tool", call: call.id, content: text});
    const open = node.calls.filter((one) => !store.above(current, result).concat(result)
      .some((other) => other.call === one.id));
    if (open.length > 0) {
      keep(current);
      showConversation();
    } else {
      answer(result.id);
    }
  },
};

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}
function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

function showConversation() {
  const nodes = store.branch(current);
  views = nodes.map((node) => new MessageView(current, node, actions));
  byId("messages").replaceChildren(...views.map((view) => view.element));
  byId("welcome").hidden = nodes.length > 0;
  byId("title").textContent = current.title;
  document.title = current.title + " · qnext";
  showList();
  showSending();
  if (answering?.conversation === current)
    views.find((view) => view.node === answering.node)?.update(true);
  scrollToEnd();
}

function showList() {
  byId("conversations").replaceChildren(...conversations.map((conversation) => {
    const shown = conversation === current;
    return element("li", {class: shown ? "shown" : ""},
      element("button", {type: "button", class: "entry", "aria-current": shown ? "true" : null,
        onclick: () => open(conversation)}, conversation.title),
      iconButton("Delete conversation", icons.remove, () => removeConversation(conversation)));
  }));
}

function showSending() {
  const busy = answering !== null;
  sendButton.setAttribute("aria-label", busy ? "Stop" : "Send");
  sendButton.title = busy ? "Stop (Escape)" : "Send (Enter)";
  sendButton.classList.toggle("busy", busy);
  sendButton.replaceChildren(icon(busy ? icons.stop : icons.send));
  sendButton.disabled = !busy && field.value.trim() === "";
}

function open(conversation) {
  current = conversation;
  localStorage.setItem(LAST, current.id);
  showConversation();
  closeList();
  field.focus();
}

function startNew() {
  open(store.newConversation(current.settings));
}

function removeConversation(conversation) {
  if (!confirm(`Delete “${conversation.title}”?`)) return;
  if (answering?.conversation === conversation) answering.controller.abort();
  store.remove(conversation);
  conversations = conversations.filter((one) => one !== conversation);
  if (conversation === current) open(conversations[0] || store.newConversation(current.settings));
  else showList();
}

// Makes an answer below the node `parent`, a branch of its own where there is one already.
async function answer(parent) {
  const conversation = current;
  const node = store.addNode(conversation, parent, {role: "assistant", reasoning: ""});
  const controller = new AbortController();
  answering = {conversation, node, controller};
  store.entitle(conversation);
  keep(conversation);
  showConversation();
  say("Answering");
  const times = {begin: performance.now(), first: 0, last: 0};
  let pieces = 0;
  let drawn = 0;
  let frame = 0;
  const draw = () => {
    frame = 0;
    // Long answers are drawn less often, so that drawing never takes most of the time.
    const begin = performance.now();
    if (pieces > 0) node.stats = measured(node, times, pieces);
    const view = views.find((one) => one.node === node);
    const follow = isAtEnd();
    view?.update(true);
    if (follow) scrollToEnd();
    drawn = performance.now() + 4 * (performance.now() - begin);
  };
  const take = (chunk) => {
    if (takeChunk(node, chunk)) {
      times.last = performance.now();
      if (pieces++ === 0) times.first = times.last;
    }
    if (!frame && performance.now() >= drawn) frame = requestAnimationFrame(draw);
  };
  try {
    const request = chatRequest(conversation.settings, store.above(conversation, node));
    await streamChat(request, localStorage.getItem(KEY), controller.signal, take);
    say("The answer is complete");
  } catch (problem) {
    if (problem.name === "AbortError") {
      node.stopped = true;
      say("Stopped");
    } else {
      node.problem = problem.message;
      if (problem instanceof HttpError && problem.status === 401) askAgain(conversation, node);
    }
  }
  cancelAnimationFrame(frame);
  if (pieces > 0) node.stats = measured(node, times, pieces);
  answering = null;
  conversation.changed = Date.now();
  keep(conversation);
  const follow = isAtEnd();
  if (conversation === current) {
    views.find((one) => one.node === node)?.update(false);
    if (follow) scrollToEnd();
  }
  showSending();
}

// The server wants a key: asks for one and tries once more, in place of the answer that failed.
async function askAgain(conversation, node) {
  const key = await askForKey(localStorage.getItem(KEY) || "");
  if (key === null) return;
  localStorage.setItem(KEY, key);
  greet();
  if (conversation !== current || answering || !conversation.nodes[node.parent]) return;
  const above = conversation.nodes[node.parent];
  above.children = above.children.filter((id) => id !== node.id);
  above.chosen = Math.max(above.children.length - 1, 0);
  delete conversation.nodes[node.id];
  answer(above.id);
}

function send() {
  const text = field.value.trim();
  if (!text || answering) return;
  field.value = "";
  fit();
  const last = store.branch(current).at(-1);
  const node = store.addNode(current, last ? last.id : "root", {role: "user", content: text});
  answer(node.id);
}

// The message's field is as high as its text.
function fit() {
  field.style.height = "auto";
  field.style.height = Math.min(field.scrollHeight, innerHeight * 0.4) + "px";
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  element("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function fileName() {
  return current.title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40) || "conversation";
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
function changeTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, next);
  setTheme(next);
}

function closeList() {
  document.body.classList.remove("list-open");
  byId("menu").setAttribute("aria-expanded", "false");
}
function toggleList() {
  const opened = document.body.classList.toggle("list-open");
  byId("menu").setAttribute("aria-expanded", String(opened));
}

async function greet() {
  try {
    const model = await servedModel(localStorage.getItem(KEY));
    byId("model").textContent = model.id;
    byId("problem").hidden = true;
  } catch (problem) {
    if (problem.status === 401 && !document.querySelector("dialog[open]")) {
      const key = await askForKey(localStorage.getItem(KEY) || "");
      if (key === null) return;
      localStorage.setItem(KEY, key);
      return greet();
    }
    byId("problem").textContent = "The server cannot be reached: " + problem.message;
    byId("problem").hidden = false;
  }
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) answering.controller.abort();
  else send();
});
field.addEventListener("input", () => {
  fit();
  showSending();
});
field.addEventListener("keydown", (event) => {
  // On a touch screen Enter is a line end: the button sends.
  const touch = matchMedia("(pointer: coarse)").matches;
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch) return;
  event.preventDefault();
  send();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (document.body.classList.contains("list-open")) closeList();
  else if (answering) answering.controller.abort();
});
byId("menu").addEventListener("click", toggleList);
byId("shade").addEventListener("click", closeList);
byId("new").addEventListener("click", startNew);
byId("theme").addEventListener("click", changeTheme);
byId("settings").addEventListener("click", async () => {
  const settings = await editSettings(current.settings, localStorage.getItem(KEY) || "");
  if (!settings) return;
  localStorage.setItem(KEY, settings.key);
  delete settings.key;
  current.settings = settings;
  if (conversations.includes(current)) keep(current);
});
byId("export").addEventListener("click", () =>
  download(fileName() + ".md", "text/markdown", store.asMarkdown(current)));
byId("export-all").addEventListener("click", () =>
  download("qnext-conversations.json", "application/json", JSON.stringify(conversations, null, 1)));
// Another tab wrote: its conversations are shown here too.
addEventListener("storage", () => {
  if (answering) return;
  conversations = store.loadAll();
  current = conversations.find((one) => one.id === current.id) || current;
  showConversation();
});

for (const [id, path] of [["menu", icons.menu], ["theme", icons.theme], ["settings", icons.settings],
  ["export", icons.save]])
  byId(id).prepend(icon(path));
byId("new").prepend(icon(icons.plus));
setTheme(localStorage.getItem(THEME));
showConversation();
field.focus();
greet();
