"use strict";
// Elements with data-live are replaced by what /ui/live sends: an element's id, a line end, its HTML.
(() => {
  const spots = new Map();
  for (const el of document.querySelectorAll("[data-live][id]")) spots.set(el.id, el);
  if (spots.size === 0 || !window.EventSource) return;
  const state = document.getElementById("live-state");
  const url = "/ui/live?want=" + encodeURIComponent([...spots.keys()].join(","));
  let source = null, pause = 1000, timer = 0;

  const tell = (text) => {
    if (!state) return;
    state.hidden = false;
    state.textContent = text;
  };

  const waiting = new Map(); // the latest HTML of each spot that is held, by the spot's id
  const pressed = new Map(); // pointers, and the space bar, that are pressed: each press is an object of its own

  const release = () => {
    for (const [id, html] of [...waiting]) replace(id, html);
  };
  const press = (by) => pressed.set(by, {});
  const letGo = (by) => {
    const which = pressed.get(by);
    setTimeout(() => { // the click comes first; the pointer may be pressed again by then
      if (pressed.get(by) === which) pressed.delete(by);
      release();
    });
  };
  window.addEventListener("pointerdown", (e) => { if (e.button === 0) press(e.pointerId); });
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, (e) => letGo(e.pointerId));
  window.addEventListener("keydown", (e) => { if (e.key === " ") press(e.key); });
  window.addEventListener("keyup", (e) => { if (e.key === " ") letGo(e.key); });
  window.addEventListener("blur", () => { for (const by of pressed.keys()) letGo(by); });
  document.addEventListener("selectionchange", release);

  // keyOf finds an element again after its replacement.
  const keyOf = (el) => el && (el.id ? "#" + CSS.escape(el.id) : el.getAttribute("href") ? `[href="${CSS.escape(el.getAttribute("href"))}"]` : el.tagName);

  // end hides the elements for work under way once a part tells that the work is over.
  const end = (part) => {
    const over = part.querySelector("[data-over]");
    const ended = over ? document.querySelectorAll("[data-until-over]:not([hidden])") : [];
    if (ended.length > 0) document.getElementById("said").textContent = over.dataset.over; // for screen readers
    for (const el of ended) el.hidden = true;
  };

  const replace = (id, html) => {
    const spot = spots.get(id);
    if (!spot) return;
    waiting.delete(id);
    // A press holds all spots, so that nothing moves between press and click.
    if (pressed.size > 0) { waiting.set(id, html); return; }
    const made = new DOMParser().parseFromString(html, "text/html");
    end(made);
    const selected = window.getSelection();
    if (selected && !selected.isCollapsed && selected.containsNode(spot, true)) { waiting.set(id, html); return; }
    const focused = spot.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    const left = [...spot.querySelectorAll(".scroll")].map((el) => el.scrollLeft);
    const open = [...spot.querySelectorAll("details[open][id]")].map((el) => el.id);
    spot.replaceChildren(...made.body.childNodes);
    [...spot.querySelectorAll(".scroll")].forEach((el, i) => { if (left[i]) el.scrollLeft = left[i]; });
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focused) spot.querySelector(focused)?.focus({ preventScroll: true });
  };

  const open = () => {
    clearTimeout(timer);
    if (source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("open", () => { pause = 1000; tell("· live"); });
    source.addEventListener("part", (e) => {
      const end = e.data.indexOf("\n");
      if (end > 0) replace(e.data.slice(0, end), e.data.slice(end + 1));
    });
    source.addEventListener("error", async () => {
      tell("· not connected, trying again");
      if (source && source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      close();
      timer = setTimeout(open, pause);
      pause = Math.min(pause * 2, 60000);
      try {
        const answer = await fetch(url, { method: "HEAD" });
        if (answer.status === 401) location.reload(); // the session has ended
      } catch { /* the mirror is away */ }
    });
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { clearTimeout(timer); close(); } else open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
