// What all sections use. Text from devices goes in by textContent alone.

export const $ = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

export class Refusal extends Error {
  constructor(status, answer) {
    super(answer.error || `the gateway answered with HTTP status ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

export async function ask(path, body) {
  const options = { headers: { "X-Edge-Gateway": "page" }, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal(0, { error: "The gateway does not answer. Is it running, and is this device in its network?" });
  }
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  if (answer.status === 401) window.dispatchEvent(new Event("logged-out"));
  throw new Refusal(answer.status, said);
}

export function notice(text) {
  $("notice").replaceChildren(...(text ? [make("p", text, "notice bad")] : []));
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const days = Math.floor(whole / 86400);
  const text = `${two(Math.floor(whole / 3600) % 24)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return days ? `${days} d ${text}` : text;
}

export const count = (number) => Number(number || 0).toLocaleString("en");

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
