// The dialogs: settings of a conversation, and the server's key.

import {element} from "/page/dom.js";
import {parseTools, samplingFields} from "/page/request.js";

// Shows a dialog until it is closed; gives what `read` reads, null where it was not confirmed.
function ask(title, content, confirm, read, check = () => "") {
  return new Promise((resolve) => {
    const problem = element("p", {class: "problem", role: "alert", hidden: true});
    const form = element("form", {method: "dialog"},
      element("h2", {}, title), content, problem,
      element("div", {class: "buttons"},
        element("button", {type: "button", class: "plain", onclick: () => dialog.close()}, "Cancel"),
        element("button", {type: "submit", class: "primary", value: "confirmed"}, confirm)));
    const dialog = element("dialog", {"aria-label": title}, form);
    form.addEventListener("submit", (event) => {
      const wrong = check();
      problem.hidden = !wrong;
      problem.textContent = wrong;
      if (wrong) event.preventDefault();
    });
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "confirmed" ? read() : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function keyField(key) {
  const input = element("input", {type: "password", autocomplete: "off", spellcheck: "false"});
  input.value = key;
  return input;
}

function labelled(label, input, help) {
  return element("label", {class: "setting"}, element("span", {class: "label"}, label), input,
    help ? element("span", {class: "help"}, help) : null);
}

export function askForKey(key) {
  const input = keyField(key);
  const content = [element("p", {}, "This server asks for an API key. It is kept in this browser."),
    labelled("API key", input)];
  return ask("API key", content, "Use it", () => input.value.trim());
}

export function editSettings(settings, key) {
  const system = element("textarea", {rows: "4", placeholder: "None"});
  system.value = settings.system;
  const tools = element("textarea", {rows: "4", class: "code-field", spellcheck: "false",
    placeholder: '[{"name": "weather", "parameters": {…}}]'});
  tools.value = settings.tools;
  const inputs = {};
  const sampling = samplingFields.map(([name, label, least, most, step, help]) => {
    const input = element("input", {type: "number", min: least, max: most, step,
      inputmode: "decimal", placeholder: "default"});
    input.value = settings[name];
    inputs[name] = input;
    return labelled(label, input, help);
  });
  const thinking = element("select", {},
    element("option", {value: ""}, "As the model does"), element("option", {value: "on"}, "On"),
    element("option", {value: "off"}, "Off"));
  thinking.value = settings.thinking;
  const secret = keyField(key);
  const content = element("div", {class: "settings"},
    labelled("System prompt", system),
    element("fieldset", {}, element("legend", {}, "Sampling"),
      element("div", {class: "grid"}, sampling,
        labelled("Reasoning", thinking, "for models that can do both"))),
    labelled("Tools", tools, "a JSON list of functions; you give their results"),
    labelled("API key", secret, "kept in this browser"));
  const read = () => ({system: system.value, tools: tools.value, thinking: thinking.value,
    key: secret.value.trim(),
    ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]))});
  const check = () => {
    try {
      parseTools(tools.value);
      return "";
    } catch (problem) {
      return "Tools: " + problem.message;
    }
  };
  return ask("Settings", content, "Save", read, check);
}
