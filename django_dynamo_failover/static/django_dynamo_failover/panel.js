"use strict";

// Refreshes the panel section by section, and leaves the reader's place as it is: what is open,
// what has the focus, how far a table is scrolled, where on the page he reads. What he has selected
// is not touched.
{
  const root = document.getElementById("failover");
  const asOf = document.getElementById("failover-as-of");
  const news = document.getElementById("failover-news"); // is read out
  const pause = document.getElementById("failover-pause");
  const TIMEOUT_MS = 10000;

  const current = () => document.getElementById("failover-sections");
  const sectionsOf = (element) => [...element.querySelectorAll(":scope > section")];
  const shown = new Map(); // what the server last sent of each section
  let paused = false;
  let failing = false;
  let selected = false; // whether a part was left as it was
  let timer = null;
  let refreshing = false;

  const tell = () => {
    asOf.textContent = [
      `As of ${current().dataset.at}.`,
      selected ? "What you have selected is older." : "",
      paused ? "Updates are paused." : "",
      failing && !paused ? "It could not be refreshed; if that goes on, reload the page." : "",
    ].filter(Boolean).join(" ");
  };

  const announce = (text) => {
    news.textContent = `Session failover: ${text}`;
  };

  const isSelected = (element) => {
    const selection = document.getSelection();
    return !selection.isCollapsed && selection.containsNode(element, true);
  };

  const focusOn = (section) => {
    section.tabIndex = -1;
    section.focus({ preventScroll: true });
  };

  const replace = (old, next) => {
    for (const details of old.querySelectorAll("details[open]")) {
      next.querySelector(`#${details.id}`)?.setAttribute("open", "");
    }
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const scrolled = [...old.querySelectorAll(".failover-scroll")].map((box) => [box.id, box.scrollLeft]);
    old.replaceWith(next);
    for (const [id, left] of scrolled) {
      const box = document.getElementById(id);
      if (box) box.scrollLeft = left;
    }
    if (!focused) return;
    const again = focused.id && next.querySelector(`#${focused.id}`);
    if (again) again.focus({ preventScroll: true });
    else focusOn(next); // what had it is gone, and the page's start would be far away
  };

  // Returns a function that scrolls what was at the top of the window back to where it was.
  const keepPlace = () => {
    if (window.scrollY <= 0) return () => {};
    const places = [...current().querySelectorAll("[id]")].filter((each) => each.getClientRects().length);
    const topOf = (element) => element.getBoundingClientRect().top;
    const reading = places.find((each) => topOf(each) >= 0 && topOf(each) < window.innerHeight)
      ?? places.findLast((each) => topOf(each) < 0);
    if (!reading) return () => {};
    const top = topOf(reading);
    return () => {
      const now = document.getElementById(reading.id);
      if (now) window.scrollBy({ top: topOf(now) - top, behavior: "instant" });
    };
  };

  const update = (next) => {
    const before = current();
    const sections = sectionsOf(next);
    const ids = new Set(sections.map((section) => section.id));
    const back = keepPlace();
    const isNews = next.dataset.headline !== before.dataset.headline;
    Object.assign(before.dataset, next.dataset);
    selected = false;
    let place = null;
    for (const section of sections) {
      const old = document.getElementById(section.id);
      const html = section.outerHTML;
      let stands = old;
      if (!old) {
        place ? place.after(section) : before.prepend(section);
        stands = section;
      } else if (shown.get(section.id) !== html) {
        if (isSelected(old)) {
          selected = true;
          place = old;
          continue;
        }
        replace(old, section);
        stands = section;
      }
      shown.set(section.id, html);
      place = stands;
    }
    for (const old of sectionsOf(before)) {
      if (ids.has(old.id)) continue;
      const focused = old.contains(document.activeElement);
      old.remove();
      shown.delete(old.id);
      if (focused && before.firstElementChild) focusOn(before.firstElementChild);
    }
    back();
    if (isNews) announce(next.dataset.headline);
    else if (failing) announce("refreshed again");
    failing = false;
    tell();
  };

  const ask = async () => {
    const response = await fetch(root.dataset.url, {
      redirect: "error", // to the login page
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(response.status);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const next = page.getElementById("failover-sections");
    if (!next) throw new Error("another page");
    return next;
  };

  const refresh = async () => {
    timer = null;
    if (paused || refreshing || document.hidden) return;
    refreshing = true;
    try {
      const next = await ask();
      if (!paused) update(next);
    } catch {
      // It is tried again.
      if (!paused) {
        if (!failing) announce("could not be refreshed");
        failing = true;
        tell();
      }
    }
    refreshing = false;
    schedule();
  };

  const schedule = () => {
    if (timer === null && !paused) timer = setTimeout(refresh, Number(current().dataset.seconds) * 1000);
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
    tell();
    if (!paused) again();
  });
  pause.hidden = false;
  for (const section of sectionsOf(current())) shown.set(section.id, section.outerHTML);
  schedule();
}
