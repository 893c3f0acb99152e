"use strict";

// Refreshes the panel section by section, and leaves the reader's place as it is: what is open,
// what has the focus, how far a table is scrolled. What he has selected is not touched.
{
  const root = document.getElementById("failover");
  const asOf = document.getElementById("failover-as-of");
  const news = document.getElementById("failover-news");
  const pause = document.getElementById("failover-pause");
  const TIMEOUT_MS = 10000;

  const current = () => document.getElementById("failover-sections");
  const shown = new Map(); // what the server last sent of each section
  let paused = false;
  let timer = null;
  let refreshing = false;

  const remember = () => {
    for (const section of current().querySelectorAll(":scope > section")) {
      shown.set(section.id, section.outerHTML);
    }
  };

  const isSelected = (element) => {
    const selection = document.getSelection();
    return !selection.isCollapsed && selection.containsNode(element, true);
  };

  const replace = (old, next) => {
    for (const details of old.querySelectorAll("details[open]")) {
      next.querySelector(`#${details.id}`)?.setAttribute("open", "");
    }
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll(".failover-scroll")].map((box) => [box.id, box.scrollLeft]);
    old.replaceWith(next);
    for (const [id, left] of scrolled) {
      const box = document.getElementById(id);
      if (box) box.scrollLeft = left;
    }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const update = (next) => {
    const before = current();
    if (next.dataset.headline !== before.dataset.headline) {
      news.textContent = `Session failover: ${next.dataset.headline}`;
    }
    Object.assign(before.dataset, next.dataset);
    let place = null;
    for (const section of [...next.querySelectorAll(":scope > section")]) {
      const old = document.getElementById(section.id);
      const html = section.outerHTML;
      if (!old) {
        place ? place.after(section) : before.prepend(section);
      } else if (shown.get(section.id) !== html && !isSelected(old)) {
        replace(old, section);
      } else {
        place = old;
        continue;
      }
      shown.set(section.id, html);
      place = section;
    }
    for (const old of before.querySelectorAll(":scope > section")) {
      if (!next.dataset.ids.split(" ").includes(old.id)) old.remove();
    }
    asOf.textContent = `As of ${next.dataset.at}.`;
  };

  const refresh = async () => {
    timer = null;
    if (paused || refreshing || document.hidden) return;
    refreshing = true;
    try {
      const response = await fetch(root.dataset.url, {
        redirect: "error", // to the login page
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (!response.ok) throw new Error(response.status);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const next = page.getElementById("failover-sections");
      next.dataset.ids = [...next.children].map((section) => section.id).join(" ");
      update(next);
    } catch {
      const at = current().dataset.at;
      asOf.textContent = `As of ${at}. It could not be refreshed; if that goes on, reload the page.`;
    }
    refreshing = false;
    schedule();
  };

  const schedule = () => {
    if (timer === null) timer = setTimeout(refresh, Number(current().dataset.seconds) * 1000);
  };

  const again = () => {
    clearTimeout(timer);
    timer = null;
    refresh();
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) again();
  });
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    if (!paused) again();
  });
  pause.hidden = false;
  remember();
  schedule();
}
