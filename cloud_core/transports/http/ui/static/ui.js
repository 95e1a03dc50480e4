// What pages gain where scripts run; without them every page still works.
import { startLive } from "./live.js";
import { tellTimes } from "./times.js";

const said = document.getElementById("said");

/** Tells people who hear the page. */
export function say(text) { said.textContent = text; }

/** After new content has come in: what it needs. */
export function dress(root) {
  tellTimes(root);
  for (const button of root.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const is_done = await copied(button.dataset.copy);
  button.textContent = is_done ? "Copied" : "Select and copy by hand";
  say(button.textContent);
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

/** The clipboard is for secure pages alone; elsewhere a selection is copied the old way. */
async function copied(text) {
  try {
    if (navigator.clipboard) { await navigator.clipboard.writeText(text); return true; }
  } catch { /* refused: the old way below */ }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden-visually";
  document.body.append(area);
  area.select();
  const is_done = document.execCommand("copy");
  area.remove();
  return is_done;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question && !form.dataset.confirmed) {
    event.preventDefault();
    ask(question, form.dataset.confirmLabel || event.submitter?.textContent || "Go on", () => {
      form.dataset.confirmed = "yes";
      form.requestSubmit(event.submitter);
      delete form.dataset.confirmed;
    });
    return;
  }
  if (form.method === "post" && !form.dataset.many) {
    setTimeout(() => { for (const button of form.querySelectorAll("button")) button.disabled = true; });
    addEventListener("pageshow", () => { for (const button of form.querySelectorAll("button")) button.disabled = false; }, { once: true });
  }
});

function ask(question, label, go) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  text.textContent = question;
  text.id = "dialog-text";
  dialog.setAttribute("aria-labelledby", text.id);
  const bar = document.createElement("div");
  bar.className = "bar";
  const yes = document.createElement("button");
  yes.textContent = label;
  yes.className = "main";
  const no = document.createElement("button");
  no.textContent = "Cancel";
  no.autofocus = true;
  bar.append(yes, no);
  dialog.append(text, bar);
  yes.addEventListener("click", () => { dialog.close(); go(); });
  no.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// The menu is open where there is room for it; the browser's own state counts on a phone.
const menu = document.querySelector("[data-menu]");
if (menu) {
  const wide = matchMedia("(min-width: 56.01rem)");
  const fit = () => { menu.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
}

// A choice in a search applies at once.
for (const form of document.querySelectorAll("form[data-search]")) {
  form.addEventListener("change", (event) => { if (event.target.matches("select")) form.requestSubmit(); });
}

dress(document);
startLive(dress);
