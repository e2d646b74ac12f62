// The pages work without this. It brings what is new into the parts marked with data-refresh,
// ticks all boxes of a list, and copies text.
"use strict";

const every = 5000;
let busy = false;

// Parts with the same mark take the place of those that are here, unless a person is in one.
async function refresh() {
  const parts = document.querySelectorAll("[data-refresh]");
  if (busy || document.hidden || parts.length === 0) return;
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { "Mailsidecar-Refresh": "1" }, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts) {
      const other = fresh.querySelector('[data-refresh="' + CSS.escape(part.dataset.refresh) + '"]');
      if (!other || part.innerHTML === other.innerHTML && part.className === other.className) continue;
      if (part.contains(document.activeElement) || part.querySelector("input:checked, details[open]")) continue;
      part.className = other.className;
      part.replaceChildren(...other.childNodes);
    }
  } catch { /* the next one may succeed */ } finally { busy = false; }
}
if (document.querySelector("[data-refresh]")) setInterval(refresh, every);

document.addEventListener("click", (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy && navigator.clipboard) {
    const from = document.getElementById(copy.dataset.copy);
    navigator.clipboard.writeText(from.textContent.trim()).then(() => { copy.textContent = "Copied"; }, () => {});
  }
});

// Ticking: data-tick-all is the box of a list, the others have data-tick. Shift ticks a range.
let last = null;
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement)) return;
  const boxes = [...document.querySelectorAll("input[data-tick]")];
  if (box.dataset.tickAll !== undefined) {
    for (const b of boxes) b.checked = box.checked;
  } else if (box.dataset.tick !== undefined) {
    if (event.shiftKey && last) {
      const [a, b] = [boxes.indexOf(last), boxes.indexOf(box)].sort((x, y) => x - y);
      for (const other of boxes.slice(a, b + 1)) other.checked = box.checked;
    }
    last = box;
  }
});
for (const e of document.querySelectorAll("[data-script]")) e.hidden = false;

// A command that goes through many messages in steps goes on by itself.
const goOn = document.querySelector("form[data-go-on]");
if (goOn) setTimeout(() => goOn.requestSubmit(), 400);
