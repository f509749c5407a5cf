// Shows what has changed without losing the reader's place. Without script the page reloads as a whole instead.
"use strict";

const seconds = () => Number(document.body.dataset.refresh || 0);

function show(next) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = next.getElementById(part.id);
    const inUse = part.contains(document.activeElement);
    if (newer && !inUse && newer.innerHTML !== part.innerHTML) {
      part.innerHTML = newer.innerHTML;
    }
  }
  document.body.dataset.refresh = next.body.dataset.refresh || 0;
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.ok) {
        show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch {
      // Away for a moment: the next look tells.
    }
  }
  schedule();
}

function schedule() {
  if (seconds() > 0) {
    setTimeout(look, seconds() * 1000);
  }
}

schedule();
