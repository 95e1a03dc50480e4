// Times in the reader's own zone; distances that grow while the page is open.
const SPANS = [[31536000, "y"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function distance(seconds) {
  const size = Math.abs(seconds);
  for (const [span, unit] of SPANS) {
    if (size >= span) {
      const text = `${Math.floor(size / span)} ${unit}`;
      return seconds > 0 ? `in ${text}` : `${text} ago`;
    }
  }
  return "now";
}

/** Of all `<time>` beneath `root`. */
export function tellTimes(root) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    const at = new Date(one.dateTime);
    const whole = shown.format(at);
    one.title = whole;
    one.textContent = "ago" in one.dataset ? distance((at - Date.now()) / 1000) : whole;
  }
}

setInterval(() => tellTimes(document), 15000);
