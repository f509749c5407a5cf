// What makes the pages nicer where there is script; without it they are read and used as well. First: shows what has
// changed without losing the reader's place.
"use strict";

const seconds = () => Number(document.body.dataset.refresh || 0);

function show(next) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = next.getElementById(part.id);
    const inUse = part.contains(document.activeElement);
    if (newer && !inUse && newer.innerHTML !== part.innerHTML) {
      part.innerHTML = newer.innerHTML;
      reveal(part);
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

// What needs script is hidden until it is there.
function reveal(root) {
  for (const element of root.querySelectorAll(".needs-script")) {
    element.hidden = false;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) {
    return;
  }
  const text = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => { button.textContent = text; }, 2000);
});

document.addEventListener("change", (event) => {
  const name = event.target.dataset.all;
  if (name) {
    for (const box of document.getElementsByName(name)) {
      box.checked = event.target.checked;
    }
  }
});

// A slash leads to the search, as elsewhere.
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea") && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("find").focus();
  }
});

reveal(document);
schedule();
