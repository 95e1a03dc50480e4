// Parts of a page that follow what happens: `<section id="…" data-live="attempt gateway">` is fetched anew when an event
// of these kinds comes, from `data-live-src` or from the page itself. A page in the background rests.
const SHORTEST_MS = 2000;  // between two fetches of a part: events come in bursts
const POLL_MS = 15000;  // where events do not get through

/** `dress`: called with each part that has come in. */
export function startLive(dress) {
  const parts = [...document.querySelectorAll("[data-live][id]")].map((element) => new Part(element, dress));
  if (!parts.length) return;
  const kinds = [...new Set(parts.flatMap((one) => one.kinds))];
  let source = null, poll = null;
  const open = () => {
    if (!kinds.length || source || document.hidden) return;
    source = new EventSource(`/ui/events?kinds=${kinds.join(",")}`);
    for (const kind of [...kinds, "gap"]) source.addEventListener(kind, () => parts.forEach((one) => one.hear(kind)));
    source.addEventListener("open", () => mark("live"));
    source.addEventListener("error", () => { mark("waiting"); if (source.readyState === EventSource.CLOSED) { source = null; setTimeout(open, POLL_MS); } });
    clearInterval(poll);
    poll = setInterval(() => { if (source?.readyState !== EventSource.OPEN) parts.forEach((one) => one.hear("gap")); }, POLL_MS);
  };
  const close = () => { source?.close(); source = null; clearInterval(poll); };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close(); else { open(); parts.forEach((one) => one.hear("gap")); }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) { open(); parts.forEach((one) => one.hear("gap")); } });
  open();
}

function mark(state) {
  for (const one of document.querySelectorAll("[data-live-state]")) one.textContent = state === "live" ? "live" : "waiting for the core";
}

/** Somebody types in it or has ticked something: what is in hand is not taken away. */
function inHand(element) {
  const active = document.activeElement;
  if (element.contains(active) && active.matches("input, select, textarea")) return true;
  return [...element.querySelectorAll("input:checked")].some((one) => !one.defaultChecked);
}

class Part {
  constructor(element, dress) {
    this.element = element;
    this.dress = dress;
    this.kinds = element.dataset.live.split(" ").filter(Boolean);
    this.timer = null;
    this.last = performance.now();
    const every = Number(element.dataset.liveEvery || 0);
    if (every) this.beat = setInterval(() => { if (!document.hidden) this.hear("gap"); }, every * 1000);
  }

  hear(kind) {
    if (this.timer !== null || (kind !== "gap" && !this.kinds.includes(kind))) return;
    const wait = Math.max(100, this.last + SHORTEST_MS - performance.now());
    this.timer = setTimeout(() => this.fetch(), wait);
  }

  async fetch() {
    this.last = performance.now();
    this.timer = null;
    const { element } = this;
    if (inHand(element)) { this.timer = setTimeout(() => this.fetch(), POLL_MS); return; }
    try {
      const response = await fetch(element.dataset.liveSrc || location.href, { headers: { Accept: "text/html", "X-Live": "1" } });
      if (response.redirected && new URL(response.url).pathname === "/ui/login") { location.reload(); return; }
      if (!response.ok) return;
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById(element.id);
      if (!fresh) return;
      if (!fresh.dataset.liveEvery) clearInterval(this.beat);  // it rests now
      if (fresh.innerHTML === this.seen) return;
      this.seen = fresh.innerHTML;
      const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
      element.replaceChildren(...fresh.childNodes);
      this.dress(element);
      if (focused) document.getElementById(focused)?.focus();
    } catch { /* the core is away: the next event or poll tries again */ }
  }
}
