// Comfort of the form that loads a file: drop it anywhere on the form, see how much is sent, read refusals in place.
const form = document.getElementById("upload");
const input = document.getElementById("f-file");
const drop = document.getElementById("drop");
const problem = document.getElementById("upload-problem");
const sending = document.getElementById("sending");
const bar = document.getElementById("sent");
const limit = Number(form.dataset.maxBytes);

document.getElementById("drop-hint").hidden = false;
for (const kind of ["dragenter", "dragover"]) form.addEventListener(kind, (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  drop.classList.add("over");
});
for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => drop.classList.remove("over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length !== 1) { refuse("Drop one file at a time."); return; }
  input.files = event.dataTransfer.files;
  check();
});
input.addEventListener("change", check);

function refuse(text) {
  const said = document.createElement("p");
  said.className = "notice bad";
  said.setAttribute("role", "alert");
  said.textContent = text;
  problem.replaceChildren(said);
}

function check() {
  problem.replaceChildren();
  const file = input.files[0];
  if (file && file.size > limit) { refuse(`The file has more than ${Math.floor(limit / 1048576)} MiB; split it.`); return false; }
  return true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (check()) send();
});

function send() {
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "text/html");
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable) bar.value = Math.round(100 * event.loaded / event.total);
  });
  request.upload.addEventListener("load", () => { label("Planning the rows"); bar.removeAttribute("value"); });
  request.addEventListener("load", () => answered(request));
  request.addEventListener("error", () => ended("The file could not be sent. Is the core running, and the file unchanged?"));
  label("Sending the file");
  bar.value = 0;
  sending.hidden = false;
  request.send(new FormData(form));
  for (const button of form.querySelectorAll("button")) button.disabled = true;
}

function label(text) { sending.querySelector("label").textContent = text; }

function answered(request) {
  const url = new URL(request.responseURL || location.href);
  if (request.status === 200 && url.pathname !== new URL(form.action).pathname) { location.assign(url); return; }
  if (request.status === 401) { ended("Your login has ended; load this page again and log in."); return; }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const once = page.querySelector("#upload [name=once]");
  if (once) form.elements.once.value = once.value;
  ended(page.querySelector("[role=alert]")?.textContent || "The core did not take the file; load the page again.");
}

function ended(text) {
  sending.hidden = true;
  for (const button of form.querySelectorAll("button")) button.disabled = false;
  refuse(text);
}
