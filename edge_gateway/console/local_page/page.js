// The page's frame: log-in, sections, the Status section.
import { $, ask, clock, count, make, notice, plural } from "./common.js";
import { configView, devicesView, liveView } from "./views.js";

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${bytes.toFixed(bytes < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

const statusView = {
  async open() { await this.refresh(); },
  async refresh() {
    const [status, { samples }] = await Promise.all([ask("api/status"), ask("api/samples")]);
    frame(status);
    tiles(status);
    trial(status.apply);
    const sources = Object.entries(status.connectors).map(source);
    $("sources").replaceChildren(...(sources.length ? sources : [make("li", "No sources yet: add a table such as [[mqtt]] under Configuration.")]));
    $("samples").replaceChildren(...(samples.length ? samples.slice(0, 10).map(sample) : [make("p", "Nothing.", "quiet")]));
  },
};

function frame(status) {
  const isOnline = status.core.state === "online";
  $("name").textContent = status.name;
  document.title = `${status.name} – edge gateway`;
  $("link-light").className = `light ${isOnline ? "online" : "away"}`;
  $("link-text").textContent = isOnline ? "connected to the core" : status.core.stateText;
}

function tile(name, text, more) {
  $(`tile-${name}`).textContent = text;
  $(`tile-${name}-more`).textContent = more;
}

function tiles({ core, spool, rates, dropped, devices, sent, uptimeS, version }) {
  const isOnline = core.state === "online";
  tile("core", isOnline ? "connected" : "not connected", `${isOnline ? "" : `${core.reason || core.stateText} · `}${clock(core.sinceS)} · ${core.url}`);
  tile("queue", count(spool.records), spool.records ? `oldest ${clock(spool.oldestAgeS)}` : "nothing waits");
  tile("rates", `${Math.round(rates.inPerS)} / ${Math.round(rates.outPerS)} per s`, `${count(sent)} sent since the start`);
  const reasons = Object.entries(dropped);
  tile("dropped", count(reasons.reduce((sum, [, number]) => sum + number, 0)), reasons.map(([why, number]) => `${count(number)} ${why}`).join(", ") || "nothing lost");
  tile("disk", `${Math.round(100 * spool.usedBytes / (spool.maxBytes || 1))} %`, `${size(spool.usedBytes)} of ${size(spool.maxBytes)}; ${size(spool.freeDiskBytes)} free on the disk`);
  tile("devices", count(devices), `up ${clock(uptimeS)} · version ${version}`);
}

function trial(apply) {
  const texts = {
    applying: "A new configuration is being applied.",
    watching: `A new configuration is on trial: ${apply.remainingS} s to go.`,
    "rolled back": `The newest configuration was rolled back: ${apply.reason}`,
    failed: `The newest configuration failed: ${apply.reason}`,
  };
  $("trial").hidden = !texts[apply.state];
  $("trial").textContent = texts[apply.state] || "";
  $("trial").classList.toggle("bad", apply.state === "rolled back" || apply.state === "failed");
}

function source([name, one]) {
  const item = make("li");
  const light = make("span", "", `light ${one.health}`);
  light.setAttribute("aria-hidden", "true");
  const title = make("span");
  title.append(make("strong", name), ` ${one.kind} · ${one.health}`);
  item.append(light, title);
  if (one.reason) item.append(make("span", one.reason, one.health === "failed" ? "reason bad-text" : "reason"));
  const refused = Object.entries(one.refused || {});
  const counts = [plural(one.readings, "reading")];
  if (one.rejected) counts.push(`${plural(one.rejected, "message")} not understood`);
  for (const [why, number] of refused.slice(0, 3)) counts.push(`${count(number)} refused: ${why}`);
  item.append(make("span", counts.join(" · "), "counts quiet"));
  return item;
}

function sample(one) {
  const block = make("div", "", "sample");
  const at = one.at ? new Date(one.at).toLocaleTimeString([], { hour12: false }) : "";
  block.append(make("p", `${at} ${[one.connector, one.source].filter(Boolean).join(" ")}: ${one.why}`));
  if (one.payload) block.append(make("code", one.payload));
  return block;
}

const VIEWS = { status: statusView, devices: devicesView, live: liveView, config: configView };
const REFRESH_MS = 2000;
let current = "";
let wanted = "status";

function show(name) {
  if (current && current !== name && VIEWS[current]?.close) VIEWS[current].close();
  current = name;
  for (const one of [...Object.keys(VIEWS), "login"]) $(`view-${one}`).hidden = one !== name;
  $("nav").hidden = name === "login";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "login") $("pin").focus();
}

async function go() {
  const name = location.hash.slice(1);
  if (name === "main") return;
  wanted = VIEWS[name] ? name : "status";
  notice("");
  show(wanted);
  try {
    await VIEWS[wanted].open();
  } catch (error) {
    if (error.status !== 401) notice(error.message);
  }
}

async function refresh() {
  if (document.hidden || !current || current === "login") return;
  try {
    if (VIEWS[current].refresh) await VIEWS[current].refresh();
    else frame(await ask("api/status"));
    if ($("notice").dataset.isLost) notice("");
    delete $("notice").dataset.isLost;
  } catch (error) {
    if (error.status === 401) return;
    if (error.status === 0) $("notice").dataset.isLost = "yes";
    notice(error.message);
  }
}

async function refreshForEver() {
  await refresh();
  setTimeout(refreshForEver, REFRESH_MS);
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("login-error").textContent = "";
  try {
    await ask("api/login", { pin: $("pin").value });
    $("pin").value = "";
    await go();
    $("main").focus({ preventScroll: true });
  } catch (error) {
    $("login-error").textContent = error.message;
    $("pin").select();
  }
});

$("logout").addEventListener("click", async () => {
  try {
    await ask("api/logout", {});
    show("login");
  } catch (error) {
    if (error.status !== 401) notice(error.message);
  }
});

window.addEventListener("hashchange", go);
window.addEventListener("logged-out", () => show("login"));
go().then(() => setTimeout(refreshForEver, REFRESH_MS));
