"use strict";
// Search as you type: the page is asked for with the form's values, and its list and choices take the
// place of those that are shown. An answer to an older question is dropped.
(() => {
  const form = document.getElementById("find"), found = document.getElementById("found"), told = document.getElementById("found-count");
  if (!form || !found || !told) return;
  const pause = 150; // ms after a key
  let timer = 0, asked = null;

  // address is the page for the form's values; values that a page without them has are left out.
  const address = () => {
    const q = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value.trim() !== "") q.append(name, value.trim());
    if (q.get("sort") === "published" && q.get("order") === "desc") { q.delete("sort"); q.delete("order"); }
    const text = q.toString();
    return form.getAttribute("action") + (text ? "?" + text : "");
  };

  const show = (page, to) => {
    const list = page.getElementById("found"), count = page.getElementById("found-count");
    if (!list || !count) return false; // an error, or the login
    found.replaceChildren(...list.childNodes);
    told.replaceChildren(...count.childNodes);
    for (const select of form.querySelectorAll("select")) {
      const next = page.getElementById(select.id);
      if (next) select.replaceChildren(...next.childNodes);
    }
    document.title = page.title;
    history.replaceState(null, "", to);
    return true;
  };

  const look = async () => {
    clearTimeout(timer);
    asked?.abort();
    const mine = asked = new AbortController();
    const to = address();
    found.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(to, { signal: mine.signal, credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine.signal.aborted) return;
      if (answer.redirected || !show(page, to)) location.assign(to);
    } catch {
      if (!mine.signal.aborted) told.textContent = "The mirror does not answer. Try again in a moment.";
    } finally {
      if (mine === asked) found.removeAttribute("aria-busy");
    }
  };

  form.addEventListener("input", (e) => {
    clearTimeout(timer);
    timer = setTimeout(look, e.target.type === "search" ? pause : 0);
  });
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    look();
  });
})();
