// The sections Devices, Live and Configuration.
import { $, ask, clock, count, make, notice, plural } from "./common.js";

const PAGE = 100;
const MAX_LIVE_ROWS = 500;

function row(...texts) {
  const line = make("tr");
  line.append(...texts.map((text) => make("td", text)));
  return line;
}

function emptyRow(text, columns) {
  const line = make("tr");
  const cell = make("td", text, "empty");
  cell.colSpan = columns;
  line.append(cell);
  return line;
}

export const devicesView = {
  page: 0,
  async open() { await this.refresh(); },
  async refresh() {
    const query = new URLSearchParams({ page: this.page, pageSize: PAGE, search: $("devices-search").value });
    const { total, devices } = await ask(`api/devices?${query}`);
    const rows = devices.map((one) => row(
      one.name === one.upstreamName ? one.name : `${one.name} (at the core: ${one.upstreamName})`,
      one.stateText, one.lastSeenMs ? `${clock((Date.now() - one.lastSeenMs) / 1000)} ago` : "never", one.type, one.connector));
    $("devices-rows").replaceChildren(...(rows.length ? rows : [emptyRow("No devices.", 5)]));
    const from = this.page * PAGE;
    $("devices-count").textContent = rows.length ? `${count(from + 1)}–${count(from + rows.length)} of ${count(total)}` : `${count(total)} devices`;
    $("devices-back").disabled = this.page === 0;
    $("devices-next").disabled = from + rows.length >= total;
  },
  async turn(page) {
    this.page = page;
    try {
      await this.refresh();
    } catch (error) {
      notice(error.message);
    }
  },
};

export const liveView = {
  source: null,
  seen: 0,
  lost: 0,
  waiting: [],
  async open() {
    const { connectors } = await ask("api/status");
    const chosen = $("live-connector").value;
    const options = ["", ...Object.keys(connectors)].map((name) => {
      const option = make("option", name || "all");
      option.value = name;
      return option;
    });
    $("live-connector").replaceChildren(...options);
    $("live-connector").value = chosen in connectors ? chosen : "";
    if (!this.source) this.listen();
  },
  close() { this.stop("not listening"); },
  listen() {
    this.stop("");
    let device = $("live-device").value.trim();
    if (device && !/[*?]/.test(device)) device = `*${device}*`;
    const query = new URLSearchParams({ device, connector: $("live-connector").value });
    this.source = new EventSource(`api/tap?${query}`);
    this.source.onopen = () => this.tell();
    this.source.onmessage = (event) => this.heard(JSON.parse(event.data));
    this.source.addEventListener("dropped", (event) => { this.lost += Number(event.data); this.tell(); });
    this.source.onerror = () => {
      const isOver = this.source.readyState === EventSource.CLOSED;
      if (isOver) this.stop("the gateway takes no further live view; close another one, or log in again");
      else $("live-state").textContent = "connection lost; trying again …";
    };
    $("live-stop").disabled = false;
    $("live-state").textContent = "connecting …";
  },
  stop(text) {
    this.source?.close();
    this.source = null;
    $("live-stop").disabled = true;
    $("live-state").textContent = text;
  },
  clear() {
    this.seen = this.lost = 0;
    this.waiting = [];
    $("live-rows").replaceChildren();
  },
  heard(one) {
    this.seen += 1;
    const at = new Date(one.ts || one.at).toLocaleTimeString([], { hour12: false });
    for (const kind of ["telemetry", "attributes"]) {
      for (const [key, value] of Object.entries(one[kind] || {})) {
        const text = typeof value === "string" ? value : JSON.stringify(value);
        const mark = kind === "attributes" ? " (attribute)" : "";
        this.waiting.push([at, one.device, key + mark, text, (one.raw || {})[key] || "", one.connector]);
      }
    }
    if (this.waiting.length > MAX_LIVE_ROWS) this.waiting.splice(0, this.waiting.length - MAX_LIVE_ROWS);
    this.frame ??= requestAnimationFrame(() => this.draw());
  },
  draw() {
    this.frame = undefined;
    const rows = $("live-rows");
    rows.prepend(...this.waiting.reverse().map((texts) => row(...texts)));
    this.waiting = [];
    while (rows.children.length > MAX_LIVE_ROWS) rows.lastChild.remove();
    this.tell();
  },
  tell() {
    if (!this.source) return;
    const lost = this.lost ? `, ${count(this.lost)} too fast to show` : "";
    $("live-state").textContent = this.seen ? `listening: ${plural(this.seen, "reading")}${lost}` : "listening; nothing yet";
  },
};

export const configView = {
  version: "",
  loaded: "",
  async open() {
    if ($("config-text").value === this.loaded) await this.load();
    const trial = await ask("api/apply");
    if (trial.state === "applying" || trial.state === "watching") await this.follow(trial.number);
  },
  async load() {
    const { file, text, version, isMasked } = await ask("api/config");
    $("config-text").value = text;
    this.loaded = $("config-text").value;  // a textarea normalises line ends
    this.version = version;
    $("config-file").textContent = file;
    $("config-masked").hidden = !isMasked;
    this.say("");
    this.list([], []);
  },
  say(text, kind = "") {
    $("config-state").textContent = text;
    $("config-state").className = text ? `notice ${kind}` : "";
    $("config-state").scrollIntoView({ block: "nearest" });
  },
  list(problems, hints) {
    const item = (one, isHint) => {
      const line = make("li", "", isHint ? "hint" : "");
      const button = make("button", `${one.line ? `Line ${one.line}: ` : ""}${isHint ? "hint: " : ""}${one.text}`);
      button.type = "button";
      button.addEventListener("click", () => this.jump(one));
      line.append(button);
      return line;
    };
    $("config-problems").replaceChildren(...problems.map((one) => item(one, false)), ...hints.map((one) => item(one, true)));
  },
  jump({ line, column }) {
    if (!line) return;
    const field = $("config-text");
    const lines = field.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    field.focus();
    field.setSelectionRange(start + Math.max(0, column - 1), start + (lines[line - 1] || "").length);
    field.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(field).lineHeight));
    this.place();
  },
  place() {
    const field = $("config-text");
    const before = field.value.slice(0, field.selectionStart).split("\n");
    $("config-place").textContent = `line ${before.length}, column ${before.at(-1).length + 1}`;
  },
  async check() {
    this.say("checking …");
    const answer = await ask("api/check", { text: $("config-text").value });
    this.list(answer.problems, answer.hints);
    const hints = answer.hints.length ? `; ${plural(answer.hints.length, "hint")}` : "";
    if (answer.ok) this.say(`The configuration is good: ${plural(answer.connectors, "source")}${hints}.`, "good");
    else this.say(`${plural(answer.problems.length, "problem")} to mend${hints}.`, "bad");
    return answer.ok;
  },
  wish(more) {
    const isEdited = $("config-text").value !== this.loaded;
    return { ...more, ...(isEdited ? { text: $("config-text").value, basedOn: this.version } : {}) };
  },
  async apply() {
    if (!(await this.check())) return;
    const { difference } = await ask("api/apply", this.wish({ dryRun: true }));
    const words = [["added", "Added"], ["changed", "Changed"], ["removed", "Removed"], ["sections", "Sections changed"], ["unchanged", "Go on untouched"]];
    const lines = words.filter(([key]) => difference[key].length).map(([key, word]) => make("li", `${word}: ${difference[key].join(", ")}`));
    $("config-difference").replaceChildren(...(lines.length ? lines : [make("li", "Nothing changes.")]));
    const dialog = $("config-dialog");
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "apply") return this.say("Nothing was changed.");
    const watchS = Math.min(3600, Math.max(5, Number($("config-watch").value) || 60));
    const trial = await ask("api/apply", this.wish({ watchS }));
    await this.follow(trial.number);
  },
  async follow(number) {
    $("config-apply").disabled = true;
    try {
      for (;;) {
        const trial = await ask("api/apply");
        if (trial.number !== number) return this.say("The gateway was started again meanwhile; look at its status.", "bad");
        if (trial.state === "good") return await this.good(trial);
        if (trial.state !== "applying" && trial.state !== "watching") {
          const back = trial.state === "rolled back" ? "The last good configuration runs again" : "The gateway needs help";
          return this.say(`${back}: ${trial.reason}. What you wrote stands here still; mend it and apply again.`, "bad");
        }
        this.say(trial.state === "watching" ? `Applied; watching the sources, ${trial.remainingS} s to go …` : "Applying …");
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    } finally {
      $("config-apply").disabled = false;
    }
  },
  async good(trial) {
    await this.load();
    const unwell = Object.entries(trial.notHealthy).map(([name, reason]) => `${name} is not healthy yet (${reason})`);
    const restart = trial.restartNeeded.map((name) => `[${name}] takes effect at the next start`);
    this.say(`Applied. ${[...unwell, ...restart].join("; ") || "All sources healthy"}.`, unwell.length ? "" : "good");
  },
};

function onClick(id, work) {
  $(id).addEventListener("click", async () => {
    notice("");
    try {
      await work();
    } catch (error) {
      if (error.answer?.problems) configView.list(error.answer.problems, error.answer.hints || []);
      if (error.status !== 401) notice(error.message);
    }
  });
}

$("devices-form").addEventListener("submit", (event) => { event.preventDefault(); devicesView.turn(0); });
onClick("devices-back", () => devicesView.turn(devicesView.page - 1));
onClick("devices-next", () => devicesView.turn(devicesView.page + 1));
$("live-form").addEventListener("submit", (event) => { event.preventDefault(); liveView.clear(); liveView.listen(); });
onClick("live-stop", () => liveView.stop("stopped"));
onClick("live-clear", () => { liveView.clear(); liveView.tell(); });
onClick("config-check", () => configView.check());
onClick("config-apply", () => configView.apply());
onClick("config-load", async () => {
  const isEdited = $("config-text").value !== configView.loaded;
  if (!isEdited || confirm("Discard what you have written here?")) await configView.load();
});
for (const name of ["keyup", "click", "input"]) $("config-text").addEventListener(name, () => configView.place());
window.addEventListener("beforeunload", (event) => {
  if ($("config-text").value !== configView.loaded) event.preventDefault();
});
